# What the components kafka3 and kafka4 share: Apache Kafka as one KRaft node on loopback.

kafka_jdk() { jdk 17 "${1:-25}"; }

# apache_install NAME VERSION LOGGING-COORDINATE…
apache_install() {
  local name=$1 version=$2
  shift 2
  need "$name" mvn "Apache Maven, to resolve the packages" || return 1
  kafka_jdk >/dev/null || { say "$name" "needs a JDK of version 17 or newer: install one, or set JAVA_HOME to it"; return 1; }
  maven_libs "$ROOT/$name" "org.apache.kafka:kafka_2.13:$version" "$@"
}

# apache_config NAME PORT: one node that is broker and controller. Short intervals, so that tests need not wait for
# cleaning, for the end of a timed-out transaction, or for a first rebalance.
apache_config() {
  local folder=$ROOT/$1 port=$2
  cat >"$folder/server.properties" <<P
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$((port + 1))
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))
advertised.listeners=PLAINTEXT://127.0.0.1:$port
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$folder/data
num.partitions=3
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=10
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=10
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
group.initial.rebalance.delay.ms=0
log.cleaner.backoff.ms=500
log.initial.task.delay.ms=1000
P
}

# apache_start NAME PORT HIGHEST-JDK LOGGING-OPTION
apache_start() {
  local name=$1 port=$2 home folder=$ROOT/$1
  home=$(kafka_jdk "$3") || { say "$name" "needs a JDK of version 17 to $3: install one, or set JAVA_HOME to it"; return 1; }
  apache_config "$name" "$port"
  if [ ! -f "$folder/data/meta.properties" ]; then
    local id
    id=$("$home/bin/java" -cp "$folder/libs/*" "$4" kafka.tools.StorageTool random-uuid 2>/dev/null | tail -1)
    "$home/bin/java" -cp "$folder/libs/*" "$4" kafka.tools.StorageTool format -t "$id" -c "$folder/server.properties" \
      >"$folder/format.log" 2>&1 || { tail -3 "$folder/format.log" >&2; return 1; }
  fi
  spawn "$name" "$home/bin/java" -Xms256m "-Xmx${KAFKA_HEAP:-768m}" -XX:+UseG1GC -cp "$folder/libs/*" "$4" \
    kafka.Kafka "$folder/server.properties"
}

apache_healthy() { grep -q 'Kafka Server started' "$ROOT/$1/server.log" 2>/dev/null && port_open "$2"; }
