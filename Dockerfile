# docker build -t cab .        an image with the tool, from a checkout and nothing else
# docker run --rm -v "$PWD:/work" cab distill mine.yaml --out runs/mine
FROM debian:12-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends make
WORKDIR /src
COPY . .
RUN make package

FROM debian:12-slim
COPY --from=build /src/build/packages/*.deb /tmp/
RUN apt-get update && apt-get install -y --no-install-recommends /tmp/*.deb && rm -rf /tmp/*.deb /var/lib/apt/lists/*
WORKDIR /work
ENTRYPOINT ["cab"]
