FROM python:3.12-slim

# Downloaded models lie in the volume too. 0.0.0.0 is the container's own address: "docker run -p" decides who reaches it.
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 GRADIO_ANALYTICS_ENABLED=False HF_HUB_DISABLE_TELEMETRY=1 \
    HF_HOME=/data/huggingface PALIMPSEST_HOST=0.0.0.0 PALIMPSEST_PORT=7860 PALIMPSEST_DATA=/data
RUN useradd --create-home --uid 10001 palimpsest && mkdir /data && chown palimpsest /data
WORKDIR /opt/palimpsest
COPY requirements.txt .
# PyPI's torch for Linux brings CUDA, some GB of it. For a small image name an index with CPU builds:
# docker build --build-arg TORCH_INDEX=<url> -t palimpsest .
ARG TORCH_INDEX=""
RUN pip install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -r requirements.txt
COPY . .
# The program's user may not write here, so its bytecode is made now, not at every start.
RUN python -m compileall -q .
USER palimpsest
VOLUME /data
EXPOSE 7860
# Without a proxy: what the network needs to get out must not be asked about the container itself.
HEALTHCHECK --interval=30s --timeout=5s --start-period=90s \
    CMD python -c "import os, urllib.request as u; u.build_opener(u.ProxyHandler({})).open('http://127.0.0.1:' + os.environ['PALIMPSEST_PORT'], timeout=4)"
CMD ["python", "-m", "app", "chat"]
