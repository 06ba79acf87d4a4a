# S1 L848-879: tests/queue/load_test.py in the seed (T-01).
"""Load test for queue system."""

import asyncio
import httpx
import time

async def create_tasks(n: int):
    """Create n tasks and measure throughput."""
    async with httpx.AsyncClient() as client:
        start = time.time()

        tasks = []
        for i in range(n):
            task = client.post(
                "http://localhost:8000/tasks",
                json={"tool_id": "profile-my-data"},
                headers={"Authorization": "Bearer ..."}
            )
            tasks.append(task)

        responses = await asyncio.gather(*tasks)

        end = time.time()

        success = sum(1 for r in responses if r.status_code == 201)
        print(f"Created {success}/{n} tasks in {end-start:.2f}s")
        print(f"Throughput: {success/(end-start):.2f} tasks/sec")

if __name__ == "__main__":
    asyncio.run(create_tasks(100))
