# syntax=docker/dockerfile:1
# Two stages: the first installs into a virtual environment, the second takes only that.
# BASE must bring Python 3.11 or newer with venv; the same image serves both stages, so the environment fits.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
WORKDIR /src
RUN python3 -m venv /opt/bridge
COPY requirements.lock ./
RUN /opt/bridge/bin/pip install --no-cache-dir --quiet --disable-pip-version-check --require-hashes -r requirements.lock
# The project itself; its build backend comes with hashes too, and is gone afterwards.
COPY tests/requirements.lock ./development.lock
COPY pyproject.toml README.md LICENSE ./
COPY bridge ./bridge
RUN sed -n '/^flit-core==/,/[^\\]$/p' development.lock > build.lock \
 && /opt/bridge/bin/pip install --no-cache-dir --quiet --disable-pip-version-check --require-hashes -r build.lock \
 && /opt/bridge/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index . \
 && /opt/bridge/bin/pip uninstall --quiet --yes flit-core pip

FROM ${BASE}
# A fixed number, so that a volume's owner can be set from outside.
RUN mkdir -p /data /etc/bridge && chown 10001:10001 /data
COPY --from=build /opt/bridge /opt/bridge
COPY config/bridge.toml /etc/bridge/bridge.toml
ENV PATH=/opt/bridge/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    BRIDGE_CONFIG=/etc/bridge/bridge.toml \
    BRIDGE_SERVER__HOST=0.0.0.0
USER 10001:10001
# The default store, sqlite:///bridge.db, stands in the working directory; url and url_file replace it.
WORKDIR /data
VOLUME /data
EXPOSE 8080
# Whether it lives, asked at the address that its settings name, wherever they stand; trouble with MOOST restarts nothing.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
  CMD ["python3", "-m", "bridge.probe"]
# Exec form: the process is number 1 and gets SIGTERM itself; it drains and ends with 0.
STOPSIGNAL SIGTERM
ENTRYPOINT ["moost-bridge"]
CMD ["serve"]
