# kafka3: Apache Kafka 3, from its public Java packages.
. "$HERE/components/_kafka.sh"

kafka3_port() { echo "${KAFKA3_PORT:-39092}"; }

kafka3_installed() { [ -f "$ROOT/kafka3/libs/kafka_2.13-3.9.1.jar" ]; }

kafka3_install() { apache_install kafka3 3.9.1 org.slf4j:slf4j-reload4j:1.7.36; }

kafka3_start() {
  cat >"$ROOT/kafka3/log4j.properties" <<'P'
log4j.rootLogger=INFO, stdout
log4j.appender.stdout=org.apache.log4j.ConsoleAppender
log4j.appender.stdout.layout=org.apache.log4j.PatternLayout
log4j.appender.stdout.layout.ConversionPattern=[%d] %p %m (%c)%n
P
  # Its SASL code calls for the security manager, which is gone from JDK 24 on.
  apache_start kafka3 "$(kafka3_port)" 23 "-Dlog4j.configuration=file:$ROOT/kafka3/log4j.properties"
}

kafka3_healthy() { apache_healthy kafka3 "$(kafka3_port)"; }

kafka3_env() { echo "HEADWAY_TEST_KAFKA=kafka3=127.0.0.1:$(kafka3_port)"; }
