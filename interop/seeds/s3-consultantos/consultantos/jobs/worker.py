"""The old worker (S3 L199-202): direct execution."""

from consultantos import world


class AnalysisWorker:
    def __init__(self, jobs=None):
        self.jobs = jobs or {}

    async def process_job(self, job_id):
        request = self.jobs[job_id]
        parts = [{"framework": name, "score": world.score(request["company"], name)}
                 for name in request["frameworks"]]
        return {"company": request["company"], "parts": parts, "total": sum(p["score"] for p in parts)}
