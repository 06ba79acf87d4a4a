docker run -d \
  --name consultantos-redis \
  -p 6379:6379 \
  redis:7-alpine
