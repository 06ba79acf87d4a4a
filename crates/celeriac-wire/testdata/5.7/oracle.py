import os
from celery.utils.saferepr import saferepr
from datetime import *
from decimal import Decimal
from uuid import UUID
import json
from kombu.utils.json import dumps
cases=[
 ((1,'a',None,True,False),1024),((1,),1024),((),1024),({},1024),(([],{}),1024),
 (("it's","say \"x\"","é☃","a\nb\\"),1024),
 ((1.0,1e16,float('nan'),float('-inf'),10**30),1024),
 (([[[1]]],),1024),(({'a':{'b':{'c':{}}}},),1024),
 ((1,'a','None hello',[1,2,3]),12),({'k':[1,{'zzz':'yyyyyyyyyyyyyyy','q':2}],'m':3},12),
 ((1,2,3,4,5,6,7,8,9),12),(('abc def ghi jkl mno',),12),(('a'*30,),12),((([1,2,3],[4,5,6],[7,8,9]),)[0],12),
 (('a'*9,[1,2]),12),(('a'*8,[1,2]),12),(('a'*8,),12),({'a'*40:1,'b':2},12),
 ((b'abc',b'\xff\x00',b'a'*20),12),((b'abc',b'\xff\x00'),1024),
 ((Decimal('1.50'),UUID(int=1),date(2026,1,2),datetime(2026,1,2,3,4,5,678901,tzinfo=timezone.utc),datetime(2026,1,2,3,4),time(3,4,5),datetime(2026,1,2,3,4,tzinfo=timezone(timedelta(hours=-5,minutes=-30))),datetime(2026,1,2,tzinfo=timezone(timedelta(hours=2)))),1024),
 (('x'*1100,1),1024),((list(range(1000)),),1024),
]
import random
r=random.Random(5)
def gen(d):
    k=r.randrange(8 if d<4 else 5)
    if k==0: return r.randrange(-1000,100000)
    if k==1: return r.choice([None,True,False])
    if k==2: return ''.join(r.choice("ab c'\"\\é") for _ in range(r.randrange(15)))
    if k==3: return r.choice([0.5,1e20,float('inf'),1e-7])
    if k==4: return 7
    if k in(5,6): return [gen(d+1) for _ in range(r.randrange(5))]
    return {''.join(r.choice("abc ") for _ in range(r.randrange(6))):gen(d+1) for _ in range(r.randrange(4))}
for i in range(60):
    x=gen(0)
    if not isinstance(x,(list,dict)): x=[x]
    if isinstance(x,list): x=tuple(x)
    cases.append((x,r.choice([5,12,20,40,80,1024])))
out=[]
for c,m in cases:
    out.append({"value":json.loads(dumps(c)),"tuple":isinstance(c,tuple),"max":m,"text":saferepr(c,m)})
d=os.path.dirname(os.path.abspath(__file__))+'/'

open(d+'saferepr.json','w').write('[\n'+',\n'.join(json.dumps(o) for o in out)+'\n]\n')
from dateutil.parser import isoparse
texts=["2026-11-21T01:52:31.240743+00:00","2030-01-01T00:00:00+00:00","2030-01-01T00:00:00Z","2030-01-01T00:00:00z","2030-01-01T00:00:00","2030-01-01 00:00:00","2030-01-01x00:00","2030-01-01T12","20300101T123456","20300101T1234","20300101","2030-01-01","2030-01","2030","203001","2030-W01-3","2030W013","2030-W01","2030W01","2030-W53","2026-W53-7","2026-W54","2030-001","2030366","2028366","2030-366","2030-01-01T00:00:00.1","2030-01-01T00:00:00,123456789Z","2030-01-01T00:00:00.123456789","2030-01-01T24:00","2030-12-31T24:00:00Z","2030-01-01T24:01","2030-01-01T23:59:60","2030-01-01T00:00:00+0530","2030-01-01T00:00:00-05:30","2030-01-01T00:00:00+05","2030-01-01T00:00:00+5","2030-01-01T00:00:00+24:00","2030-01-01T00:00:00+00:60","2030-01-01T00:00:00-00:00","2030-13-01","2030-02-29","2028-02-29","0000-01-01","0001-01-01","","x","2030-1-1","2030-01-01T","2030-01-01T1","2030-01-01T12:","2030-01-01T12:3","2030-01-01T12:34:","2030-01-01T12:34:56.","2030-01-01T12:3456","2030-01-01T1234:56","2030-0101","203001-01","2030-01-01T12:34:56 Z","2030-01-01T12:34:56Zx","2030-01-01T12:34:56+00:00:00","2030-01-01T12.5","2030-01-01T12:34.5","2030-01-01T12:34Z","2030-01-01T12Z","2030-01-01Z"," 2030-01-01","2030-01-01T12:34:56é","2030-01-01é12:34","+2030-01-01","2030-W01-0","2030-W01-8","2030-W1","2030-W01-3T10:00Z","2030W013T10:00Z","2030-W01T10:00Z","2030-001T10:00Z","2030001T10Z","2030-01-01T12:34:56+05:3","2030-01-01T12:34:56.123+05:30","2030-01-01T123456.5+0530","2030-W00-1","2030-000","2030T10:00","2030-01T10:00"]
rows=[]
for t in texts:
    try:
        x=isoparse(t)
        if x.tzinfo is None: x=x.replace(tzinfo=timezone.utc)
        rows.append([t,x.astimezone(timezone.utc).isoformat()])
    except Exception as e: rows.append([t,None])
open(d+'isoparse.json','w').write('[\n'+',\n'.join(json.dumps(o) for o in rows)+'\n]\n')
