# One image for head and workers: the code of this folder, and the packages of requirements.lock.
#   docker build -t registry.example.org/vistudy:0.1.0 .
# Its Python must be the driver's, to the patch (Ray compares): build with --build-arg PYTHON=3.11 where drivers have 3.11.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim

RUN useradd --create-home --uid 1000 vistudy && mkdir -p /opt/vistudy /venv && chown vistudy /opt/vistudy /venv
USER vistudy
WORKDIR /opt/vistudy
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONHASHSEED=0 \
    OMP_NUM_THREADS=1 \
    RAY_AUTH_MODE=token \
    RAY_USAGE_STATS_ENABLED=0

# Packages first: they change seldom, and are most of the image. PyTorch's wheels bring CUDA; a driver is all the host needs.
COPY --chown=vistudy requirements.lock ./
RUN python -m venv /venv && pip install --no-cache-dir --no-deps -r requirements.lock

# What a cluster needs on top: the dashboard's packages for `ray job`, and the object stores.
COPY --chown=vistudy pyproject.toml README.md LICENSE ./
COPY --chown=vistudy study study
COPY --chown=vistudy trainables trainables
COPY --chown=vistudy analysis analysis
COPY --chown=vistudy clusters clusters
COPY --chown=vistudy vistudy vistudy
RUN pip install --no-cache-dir --constraint requirements.lock ".[cluster,s3,gcs]"

WORKDIR /home/vistudy
CMD ["vistudy", "--help"]
