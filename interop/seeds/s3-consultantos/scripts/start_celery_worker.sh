#!/bin/sh
# Named by the seed (S3 L100), not shown there. CELERY=celeriac runs it with celeriac.
exec ${CELERY:-celery} -A consultantos.jobs.celery_app worker --loglevel=info "$@"
