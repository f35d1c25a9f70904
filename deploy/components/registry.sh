# registry: a schema registry (Apicurio) that speaks Confluent's API, from its public Java package. Its storage is a file,
# so a restart keeps schemas and their ids. Compatibility is BACKWARD, as in Confluent's (Apicurio's own default is NONE).

registry_version=3.3.3

registry_port() { echo "${REGISTRY_PORT:-18081}"; }

registry_url() { echo "http://127.0.0.1:$(registry_port)/apis/ccompat/v7"; }

registry_installed() { [ -f "$ROOT/registry/app/app/apicurio-registry-app-$registry_version.jar" ]; }

registry_install() {
  need_jdk registry 21 99 && need registry mvn "Apache Maven, to resolve the package" || return 1
  local coordinate=io.apicurio:apicurio-registry-app:$registry_version:tar.gz:all
  local archive=$ROOT/maven/io/apicurio/apicurio-registry-app/$registry_version/apicurio-registry-app-$registry_version-all.tar.gz
  (
    cd "$ROOT/registry" && maven dependency:3.8.1:get -Dtransitive=false "-Dartifact=$coordinate" >install.log 2>&1 &&
      rm -rf app && mkdir app && tar -xzf "$archive" -C app && rm -f "$archive"
  )
}

registry_start() {
  local home
  home=$(jdk 21 99) || { need_jdk registry 21 99; return 1; }
  mkdir -p "$ROOT/registry/data"
  spawn registry "$home/bin/java" "-Xmx${REGISTRY_HEAP:-512m}" -XX:+UseSerialGC \
    -Dapicurio.storage.kind=sql -Dapicurio.storage.sql.kind=h2 \
    "-Dapicurio.datasource.url=jdbc:h2:file:$ROOT/registry/data/registry" \
    -Dapicurio.datasource.username=sa -Dapicurio.datasource.password=sa \
    -Dquarkus.http.host=127.0.0.1 "-Dquarkus.http.port=$(registry_port)" \
    -Dquarkus.management.host=127.0.0.1 "-Dquarkus.management.port=$(($(registry_port) + 1))" \
    -Dquarkus.http.access-log.enabled=false \
    -jar "$ROOT/registry/app/quarkus-run.jar"
}

registry_healthy() { curl -sf -m 2 "$(registry_url)/subjects" >/dev/null; }

registry_ready() {
  curl -sf -m 10 -o /dev/null -X PUT -H 'Content-Type: application/vnd.schemaregistry.v1+json' \
    -d '{"compatibility":"BACKWARD"}' "$(registry_url)/config"
}

registry_env() { echo "HEADWAY_TEST_REGISTRY=$(registry_url)"; }
