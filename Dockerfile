FROM python:3.13-slim AS build
WORKDIR /build
COPY requirements.txt .
# The environment gets no pip of its own: nothing is installed once the service runs.
RUN python -m venv --without-pip /venv \
    && pip --python /venv/bin/python install --no-cache-dir --only-binary :all: --require-hashes -r requirements.txt

FROM python:3.13-slim
LABEL org.opencontainers.image.title="Parley" \
      org.opencontainers.image.description="A chat backend: an answer belongs to the store, not to the connection" \
      org.opencontainers.image.licenses="MIT"
RUN useradd --system --uid 10001 --no-create-home parley && install -d -o parley -g parley -m 700 /data
COPY --from=build /venv /venv
COPY app /service/app
WORKDIR /service
USER parley
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOST=0.0.0.0 PORT=8080 DATA_DIR=/data
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:' + os.environ['PORT'] + '/health/live', timeout=2)"]
# The exec form: SIGTERM reaches Python.
CMD ["python", "-m", "app"]
