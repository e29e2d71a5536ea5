import statistics as st, sys, math
from dataclasses import replace
from multiprocessing import Pool
from sim import policies,simulator,synthetic,trace
from tarmac.gpu import placement, estimate
from tarmac.gpu.estimate import Measured, Outcome
from tarmac.gpu.placement import Need,Policy as P
T=policies.Tarmac
SEEDS=range(20,30)
class Stale(T):
    def need(self,job,loads):
        if job.need is not None and job.known>=0 and len(job.own)==getattr(job,'_n',0): return job.need
        job._n=len(job.own); job.known=-1
        return super().need(job,loads)
class Live(T):
    AT=0.1
    def admit(self,w,loads):
        m=simulator._M; self.live={}
        for r in m.running:
            s=r.job.session; done=1-r.work/(s.duration_s*(0.3 if r.dies else 1))
            if not r.dies and done>=self.AT: self.live.setdefault(s.model,[]).append(Measured(Outcome.SUCCESS,0,s.peak_bytes,s.data_bytes))
        return super().admit(w,loads)
    def need(self,job,loads):
        old=self.history[job.session.model]
        self.history[job.session.model]=type(old)(list(self.live.get(job.session.model,()))+list(old),maxlen=200)
        job.known=-1
        try: return super().need(job,loads)
        finally: self.history[job.session.model]=old
orig_init=simulator._Machine.__init__
def init(self,*a): orig_init(self,*a); simulator._M=self
simulator._Machine.__init__=init
orig=estimate.similar
def nearest(k,recent):
    def f(history,data):
        known=orig(history,data)[:recent]
        known.sort(key=lambda m: abs(math.log((m.data_bytes+1)/(data+1))))
        return known[:k]
    return f
def traces(seed,every):
    if every: return [synthetic.mix('d',seed=seed+100,sessions=250,devices=2,every_s=every)]
    return [synthetic.mix('b',seed=seed,sessions=200,devices=2,every_s=0), synthetic.mix('d',seed=seed+100,sessions=250,devices=2,every_s=300)]
def mk(cls,t,warm):
    p=cls()
    if warm:
        simulator.simulate(warm,p); q=cls(); q.history=p.history; q.seen=p.seen; return q
    return p
def run(a):
    label,cls,warm,sim,near,after,every,margin=a
    estimate.SIMILAR=sim; placement.PROTECT_AFTER=after
    estimate._MARGIN_PERCENT=margin
    estimate.similar=nearest(*near) if near else orig
    rows=[]
    for s in SEEDS:
        for t,w in zip(traces(s,every),traces(s+1000,every)):
            b=simulator.simulate(t,policies.OnePerDevice()); o=simulator.simulate(t,policies.Oracle())
            r=simulator.simulate(t,mk(cls,t,w if warm else None))
            big=[r.waits[x.number]/3600 for x in t.sessions if x.peak_bytes>15*2**30]; sm=[r.waits[x.number]/3600 for x in t.sessions if x.peak_bytes<4*2**30]
            rows.append((r.makespan/b.makespan, r.makespan/o.makespan, r.memory_time(o.makespan)/o.memory_time(o.makespan), r.slowdown(.95),st.mean(big),max(big),st.mean(sm),r.out_of_memory))
    return label, [st.mean(x) for x in zip(*rows)]
M0=((1,20),(3,10),(8,5))
jobs=[]
for every in (0,1000):
  e='load1' if every else 'over'
  for w in (0,1):
    n=e+(' warm' if w else ' cold')
    for sm in (2,4,8): jobs.append((f'{n} S{sm}',T,w,sm,None,16,every,M0))
    for m in (((1,20),(3,10),(8,3)),((1,10),(3,5),(8,3)),((1,10),(3,5),(8,2)),((1,20),(3,10),(8,8)),((1,30),(3,15),(8,5))): jobs.append((f'{n} S4 {m}',T,w,4,None,16,every,m))
    for a in (8,16,24,32,64): jobs.append((f'{n} S4 after {a}',T,w,4,None,a,every,M0))
print('label mk/dev mk/oracle mem p95 bigwait bigmax smallwait oom')
with Pool(2) as pool:
    for l,r in pool.imap(run,jobs): print(f'{l:40}',' '.join(f'{x:.3f}' for x in r),flush=True)
