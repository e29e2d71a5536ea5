import statistics as st, sys
from multiprocessing import Pool
from sim import policies,simulator,synthetic,trace
from tarmac.gpu import placement, estimate
if not hasattr(placement,'PROTECT_AFTER'): placement.PROTECT_AFTER=16
T=policies.Tarmac
SEEDS=range(20,26)
def traces(seed):
    return [synthetic.mix('b',seed=seed,sessions=200,devices=2,every_s=0), synthetic.mix('d',seed=seed+100,sessions=250,devices=2,every_s=300)]
def one(args):
    label,similar,margin,after,warm,rnd,kind=args
    if similar: estimate.SIMILAR=similar
    if margin: estimate._MARGIN_PERCENT=margin
    if rnd: estimate._ROUND=rnd*1024**2
    placement.PROTECT_AFTER=after
    rows=[]
    for s in SEEDS:
        for t,w in zip(traces(s),traces(s+1000)):
            b=simulator.simulate(t,policies.OnePerDevice(protect_after=16)); o=simulator.simulate(t,policies.Oracle())
            p=T()
            if warm:
                simulator.simulate(w,p); q=T(); q.history=p.history; q.seen=p.seen; p=q
            r=simulator.simulate(t,p)
            last=max(a for a,_,_ in o.spans)
            big=[r.waits[x.number] for x in t.sessions if x.peak_bytes>15*2**30]; sm=[r.waits[x.number] for x in t.sessions if x.peak_bytes<4*2**30]
            rows.append((r.makespan/b.makespan, r.makespan/o.makespan, r.memory_time(o.makespan)/o.memory_time(o.makespan), r.memory_time(last)/o.memory_time(last), r.slowdown(.95), st.mean(big)/3600,max(big)/3600, st.mean(sm)/3600,r.out_of_memory,r.failures))
    return label, [st.mean(x) for x in zip(*rows)]
M=estimate._MARGIN_PERCENT
jobs=[]
for warm in (0,1):
    w='warm' if warm else 'cold'
    for s in (2,4,8): jobs.append((f'{w} SIMILAR {s}',s,None,16,warm,None,0))
    for m in (((1,10),(3,5),(8,3)),((1,20),(3,10),(8,3)),((1,20),(3,8),(8,8))): jobs.append((f'{w} S4 {m}',4,m,16,warm,None,0))
    for a in (4,8,32,64,256): jobs.append((f'{w} S4 after {a}',4,None,a,warm,None,0))
    jobs.append((f'{w} S4 round 16M',4,None,16,warm,16,0))
print('label  mk/dev mk/oracle mem(makespan) mem(last adm) p95 bigwait_h bigmax_h smallwait_h oom fail')
with Pool(2) as pool:
    for l,r in pool.imap(one,jobs): print(f'{l:40}',' '.join(f'{x:.3f}' for x in r),flush=True)
