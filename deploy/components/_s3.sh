# What the components minio and versitygw share: keys that are for tests alone, the region, and a bucket.

s3_access_key=headway-test
s3_secret_key=headway-test-secret
s3_region=us-east-1
s3_bucket=headway-test

# s3_make_bucket URL: 409 says that it is there already. The header is the SHA-256 of nothing, which is the request's body.
s3_make_bucket() {
  local status nothing=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
  status=$(curl -s -m 10 -o /dev/null -w '%{http_code}' -X PUT -H "x-amz-content-sha256: $nothing" --aws-sigv4 "aws:amz:$s3_region:s3" \
    --user "$s3_access_key:$s3_secret_key" "$1/$s3_bucket")
  [ "$status" = 200 ] || [ "$status" = 409 ] || { echo "making the bucket $s3_bucket was answered with $status" >&2; return 1; }
}

# s3_settings NAME URL
s3_settings() {
  echo "HEADWAY_TEST_S3=$1=$2"
  echo "HEADWAY_TEST_S3_BUCKET=$s3_bucket"
  echo "HEADWAY_TEST_S3_REGION=$s3_region"
  echo "HEADWAY_TEST_S3_ACCESS_KEY=$s3_access_key"
  echo "HEADWAY_TEST_S3_SECRET_KEY=$s3_secret_key"
}
