# api/microservices_gateway.py
class EvaluationSubmitter:
    def __init__(self):
        self.celery_enabled = CELERY_ENABLED
        self.celery_percentage = float(CELERY_PERCENTAGE)
    
    async def submit_evaluation(self, eval_id, code, language):
        # Decision logic for queue selection
        use_celery = (
            self.celery_enabled and 
            random.random() < self.celery_percentage
        )
        
        if use_celery:
            return await self._submit_to_celery(eval_id, code, language)
        else:
            return await self._submit_to_legacy(eval_id, code, language)
