# kafka4: Apache Kafka 4, from its public Java packages.
. "$HERE/components/_kafka.sh"

kafka4_port() { echo "${KAFKA4_PORT:-29092}"; }

kafka4_installed() { [ -f "$ROOT/kafka4/libs/kafka_2.13-4.3.1.jar" ]; }

kafka4_install() { apache_install kafka4 4.3.1 org.apache.logging.log4j:log4j-slf4j-impl:2.25.4; }

kafka4_start() {
  cat >"$ROOT/kafka4/log4j2.yaml" <<'P'
Configuration:
  Appenders:
    Console:
      name: STDOUT
      PatternLayout: {pattern: "[%d] %p %m (%c)%n"}
  Loggers:
    Root:
      level: INFO
      AppenderRef: [{ref: STDOUT}]
P
  apache_start kafka4 "$(kafka4_port)" 25 "-Dlog4j2.configurationFile=$ROOT/kafka4/log4j2.yaml"
}

kafka4_healthy() { apache_healthy kafka4 "$(kafka4_port)"; }

kafka4_env() { echo "HEADWAY_TEST_KAFKA=kafka4=127.0.0.1:$(kafka4_port)"; }
