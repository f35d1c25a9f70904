// Command kfake serves one Kafka-protocol broker on loopback, with its records in a folder: the quick broker of the
// tests. It speaks transactions, groups, compaction and DeleteRecords, without replication.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/twmb/franz-go/pkg/kfake"
)

func main() {
	port := flag.Int("port", 19092, "port on 127.0.0.1")
	dir := flag.String("dir", "", "folder for the records; they are lost with the process if it is not given")
	flag.Parse()
	if err := serve(*port, *dir); err != nil {
		fmt.Fprintln(os.Stderr, "kfake:", err)
		os.Exit(1)
	}
}

func serve(port int, dir string) error {
	if port < 1 || port > 65535 {
		return errors.New("-port must be from 1 to 65535")
	}
	options := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.Ports(port),
		// The cleaner looks often, so that tests of compaction need not wait.
		kfake.BrokerConfigs(map[string]string{"log.cleaner.backoff.ms": "500"}),
		kfake.WithLogger(kfake.BasicLogger(os.Stderr, kfake.LogLevelWarn)),
	}
	if dir != "" {
		options = append(options, kfake.DataDir(dir))
	}
	cluster, err := kfake.NewCluster(options...)
	if err != nil {
		return err
	}
	defer cluster.Close()
	fmt.Println("serving on", cluster.ListenAddrs())

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	<-stop
	return nil
}
