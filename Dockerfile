FROM python:3.12-slim

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 GRADIO_ANALYTICS_ENABLED=False HF_HUB_DISABLE_TELEMETRY=1 \
    PALIMPSEST_HOST=0.0.0.0 PALIMPSEST_DATA=/data
RUN useradd --create-home --uid 10001 palimpsest && mkdir /data && chown palimpsest /data
WORKDIR /opt/palimpsest
COPY requirements.txt .
# For a small image without CUDA, name an index with CPU builds of torch: docker build --build-arg TORCH_INDEX=<url> .
ARG TORCH_INDEX=""
RUN pip install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -r requirements.txt
COPY . .
USER palimpsest
VOLUME /data
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=90s \
    CMD python -c "import urllib.request as u; u.urlopen('http://127.0.0.1:7860/', timeout=4)"
CMD ["python", "-m", "app", "chat"]
