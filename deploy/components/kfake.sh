# A component NAME defines: NAME_port, NAME_installed, NAME_install (log to install.log), NAME_start (through `spawn`),
# NAME_healthy, NAME_env (prints NAME=VALUE lines for the tests), and may define NAME_ready (what is done once it is
# healthy, at each start). Its folder is $ROOT/NAME, its data in data/ there; it must start again on that data.
#
# kfake: one Kafka-protocol broker in Go, from its public module; starts at once.

kfake_port() { echo "${KFAKE_PORT:-19092}"; }

# The sources' checksum is in the program's name: a changed source is built again.
kfake_program() { echo "$ROOT/kfake/kfake-$(cat "$HERE"/kfake/main.go "$HERE"/kfake/go.sum | cksum | cut -d' ' -f1)"; }

kfake_installed() { [ -x "$(kfake_program)" ]; }

kfake_install() {
  need kfake go "Go 1.26 or newer" || return 1
  (cd "$HERE/kfake" && GOFLAGS=-mod=readonly go build -trimpath -ldflags '-s -w' -o "$(kfake_program)" . >"$ROOT/kfake/install.log" 2>&1)
}

kfake_start() { spawn kfake "$(kfake_program)" -port "$(kfake_port)" -dir "$ROOT/kfake/data"; }

kfake_healthy() { grep -q '^serving on' "$ROOT/kfake/server.log" 2>/dev/null && port_open "$(kfake_port)"; }

kfake_env() { echo "HEADWAY_TEST_KAFKA=kfake=127.0.0.1:$(kfake_port)"; }
