# kiln's own image, of the binary that `make dist` makes:
#
#     make dist
#     kiln build -t kiln .                      # kiln and root certificates, nothing else
#     kiln build -t kiln:full --target full .   # on Debian, with the programs that kiln uses where they are installed
#
# Contexts can replace the stages `debian`, `certificates` and `binary`. Certificates of this machine:
#
#     kiln build --build-context certificates=/etc/ssl/certs -t kiln .
#
# A container of the image serves BuildKit's API, as those of moby/buildkit do (docs/reference/serve.md). With words such as
# `build .`, it runs this command of kiln instead.

FROM debian:trixie-slim AS debian

FROM debian AS programs
RUN apt-get update && \
    apt-get install -y --no-install-recommends ca-certificates git nftables passt uidmap && \
    rm -rf /var/lib/apt/lists/*

FROM programs AS certificates
RUN cp /etc/ssl/certs/ca-certificates.crt /

FROM scratch AS binary
ARG TARGETARCH
COPY target/dist/${TARGETARCH}/kiln /

FROM programs AS full
COPY --link --from=binary /kiln /usr/bin/kiln
COPY --link packaging/image /
VOLUME /var/lib/kiln /var/lib/buildkit
ENTRYPOINT ["/usr/bin/buildkitd"]

FROM scratch
COPY --link --from=certificates /ca-certificates.crt /etc/ssl/certs/
COPY --link --from=binary /kiln /usr/bin/kiln
COPY --link packaging/image /
VOLUME /var/lib/kiln /var/lib/buildkit
ENTRYPOINT ["/usr/bin/buildkitd"]
