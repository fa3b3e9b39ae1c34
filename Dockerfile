# The service with its agents, for linux/amd64 (the agents' architectures do not follow the image's).
#
#   docker build -t ptycast .        podman: add --format docker, or HEALTHCHECK is ignored

FROM debian:12 AS build
WORKDIR /src
# What changes seldom first: a changed source then meets these layers in the cache.
COPY scripts/setup.sh scripts/
COPY package.json package-lock.json .npmrc ./
RUN scripts/setup.sh build \
	&& DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
		gcc-aarch64-linux-gnu libc6-dev-arm64-cross
COPY . .
RUN make install DESTDIR=/out

FROM debian:12
# libwebsockets loads its libuv plugin by name: nothing links it.
RUN apt-get update \
	&& DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
		ca-certificates libcurl4 libhiredis0.14 libjansson4 libjwt0 libmicrohttpd12 libsodium23 \
		libsqlite3-0 libuv1 libwebsockets17 libwebsockets-evlib-uv \
	&& rm -rf /var/lib/apt/lists/*
COPY --from=build /out /
# A number, so that Kubernetes can see that it is not root. /var/lib/ptycast is for a SQLite store alone.
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/ptycast --shell /usr/sbin/nologin ptycast
USER 10001
WORKDIR /var/lib/ptycast
ENV PTYCAST_LISTEN=0.0.0.0:8080
EXPOSE 8080
# /healthz: the process answers. Not /readyz: a restart does not bring a lost Redis back.
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s CMD [ "bash", "-c", "\
exec 3<>/dev/tcp/127.0.0.1/${PTYCAST_LISTEN##*:} && \
printf 'GET /healthz HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && \
read -r -t 2 status <&3 && [[ $status == *' 200 '* ]]" ]
ENTRYPOINT ["ptycast"]
CMD ["serve"]
