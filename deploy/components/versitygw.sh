# versitygw: an S3 gateway over a folder, built from its public Go module. A second opinion on what S3 is: it shares no code
# with MinIO.
. "$HERE/components/_s3.sh"

versitygw_version=v1.8.0

versitygw_port() { echo "${VERSITYGW_PORT:-17070}"; }

versitygw_url() { echo "http://127.0.0.1:$(versitygw_port)"; }

versitygw_installed() { [ -x "$ROOT/versitygw/bin/versitygw" ]; }

versitygw_install() { go_install versitygw github.com/versity/versitygw/cmd/versitygw "$versitygw_version"; }

versitygw_start() {
  local folder=$ROOT/versitygw/data
  mkdir -p "$folder/buckets" "$folder/versions" "$folder/iam"
  ROOT_ACCESS_KEY=$s3_access_key ROOT_SECRET_KEY=$s3_secret_key \
    spawn versitygw "$ROOT/versitygw/bin/versitygw" --port "127.0.0.1:$(versitygw_port)" --region "$s3_region" \
    --health /health --iam-dir "$folder/iam" --quiet posix --versioning-dir "$folder/versions" "$folder/buckets"
}

versitygw_healthy() { curl -sf -m 2 "$(versitygw_url)/health" >/dev/null; }

versitygw_ready() { s3_make_bucket "$(versitygw_url)"; }

versitygw_env() { s3_settings versitygw "$(versitygw_url)"; }
