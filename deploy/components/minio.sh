# minio: MinIO, built from its public Go module (some minutes). It is only run, never linked or shipped: its licence is AGPL.
. "$HERE/components/_s3.sh"

minio_version=v0.0.0-20260212201848-7aac2a2c5b7c

minio_port() { echo "${MINIO_PORT:-19000}"; }

minio_url() { echo "http://127.0.0.1:$(minio_port)"; }

minio_installed() { [ -x "$ROOT/minio/bin/minio" ]; }

minio_install() { go_install minio github.com/minio/minio "$minio_version"; }

minio_start() {
  mkdir -p "$ROOT/minio/data"
  MINIO_ROOT_USER=$s3_access_key MINIO_ROOT_PASSWORD=$s3_secret_key MINIO_BROWSER=off MINIO_REGION_NAME=$s3_region \
    spawn minio "$ROOT/minio/bin/minio" server --quiet --address "127.0.0.1:$(minio_port)" "$ROOT/minio/data"
}

minio_healthy() { curl -sf -m 2 "$(minio_url)/minio/health/ready" >/dev/null; }

minio_ready() { s3_make_bucket "$(minio_url)"; }

minio_env() { s3_settings minio "$(minio_url)"; }
