import sys,time
from dataclasses import replace
from sim import policies,simulator,synthetic,trace
from tarmac.gpu import placement, estimate
if not hasattr(placement,'PROTECT_AFTER'): placement.PROTECT_AFTER=16
TR=[synthetic.burst(),synthetic.day(),trace.gavel(),trace.muri()]
base=[(simulator.simulate(t,policies.OnePerDevice()),simulator.simulate(t,policies.Oracle())) for t in TR]
def show(label, mk, trs=TR):
    out=[]
    for t,(b,o) in zip(trs,base):
        r=simulator.simulate(t,mk(t))
        out.append(f"{r.makespan/b.makespan:.3f} {r.memory_time(o.makespan)/o.memory_time(o.makespan):.3f} oom{r.out_of_memory:3} f{r.failures} p95 {r.slowdown(.95):5.0f}/{o.slowdown(.95):5.0f}")
    print(f"{label:26}", ' | '.join(out), flush=True)
T=policies.Tarmac
show('tarmac', lambda t:T())
for s in (4,8,1000):
    estimate.SIMILAR=s; show(f'SIMILAR {s}', lambda t:T())
estimate.SIMILAR=2
def warm(t):
    p=T(); simulator.simulate(t,p); q=T(); q.history=p.history; q.seen=p.seen; return q
show('warm (second pass)', warm)
estimate.SIMILAR=8
show('warm, SIMILAR 8', warm)
estimate._ROUND=1024**2; show('warm S8 round 1M', warm); estimate._ROUND=64*1024**2
m=estimate._MARGIN_PERCENT
for mm in (((1,20),(3,10),(8,3)),((1,10),(3,5),(8,3)),((1,5),(3,2),(8,1)),((1,30),(3,20),(8,10))):
    estimate._MARGIN_PERCENT=mm; show(f'warm S8 {mm}', warm); show(f'cold S8 {mm}', lambda t:T())
estimate._MARGIN_PERCENT=m
for a in (1,4,8,32,64,10**6):
    show(f'warm S8 after {a}', lambda t:(lambda q:(setattr(q,'overtakes',policies.Overtakes(a)),q)[1])(warm(t)))
