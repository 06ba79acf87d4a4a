#!/bin/sh
# Named by the seed (S3 L103), not shown there.
exec celery -A consultantos.jobs.celery_app beat --loglevel=info "$@"
