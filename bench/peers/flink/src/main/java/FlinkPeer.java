import org.apache.flink.configuration.Configuration;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;

/**
 * The benchmark's job in Flink SQL, exactly once, with one slot and its state on the heap, in a Flink inside this process:
 * from the start of a topic to its end. What it needs to know are system properties, see {@code bench/src/peers.rs}.
 */
public final class FlinkPeer {
    private static String option(String name) {
        String value = System.getProperty(name);
        if (value == null) {
            throw new IllegalArgumentException("-D" + name + "=… is missing");
        }
        return value;
    }

    public static void main(String[] arguments) throws Exception {
        String group = option("group");
        String type = group.equals("id") ? "STRING NOT NULL" : "INT NOT NULL";
        Configuration configuration = new Configuration();
        configuration.setString("parallelism.default", "1");
        configuration.setString("taskmanager.numberOfTaskSlots", "1");
        configuration.setString("state.backend.type", "hashmap");
        configuration.setString("execution.checkpointing.mode", "EXACTLY_ONCE");
        // A hundred times rarer than the others commit: it only helps it.
        configuration.setString("execution.checkpointing.interval", "10 s");
        configuration.setString("execution.checkpointing.dir", "file://" + option("folder"));
        configuration.setString("restart-strategy.type", "none");
        configuration.setString("pipeline.object-reuse", "true");
        StreamTableEnvironment tables =
            StreamTableEnvironment.create(StreamExecutionEnvironment.createLocalEnvironment(configuration));
        tables.getConfig().set("table.local-time-zone", "UTC");
        tables.executeSql("CREATE TABLE trips (" + (group.equals("id") ? "id STRING NOT NULL, " : "vendor_id INT NOT NULL, ")
            + "pickup_at TIMESTAMP(3) NOT NULL, passenger_count INT NOT NULL, gc_distance DOUBLE NOT NULL,"
            + " trip_duration INT NOT NULL, WATERMARK FOR pickup_at AS pickup_at - INTERVAL '5' MINUTE) WITH ("
            + "'connector' = 'kafka', 'topic' = '" + option("topic") + "',"
            + "'properties.bootstrap.servers' = '" + option("brokers") + "',"
            + "'properties.group.id' = '" + option("application") + "', 'properties.isolation.level' = 'read_committed',"
            + "'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset',"
            + "'format' = 'avro-confluent', 'avro-confluent.url' = '" + option("registry") + "')");
        tables.executeSql("CREATE TABLE results (window_start TIMESTAMP(3) NOT NULL, window_end TIMESTAMP(3) NOT NULL, "
            + group + " " + type + ", trip_count BIGINT NOT NULL, passenger_count BIGINT NOT NULL,"
            + " total_trip_duration BIGINT NOT NULL, average_trip_duration DOUBLE NOT NULL,"
            + " average_trip_distance DOUBLE NOT NULL) WITH ("
            + "'connector' = 'kafka', 'topic' = '" + option("output") + "',"
            + "'properties.bootstrap.servers' = '" + option("brokers") + "',"
            + "'key.format' = 'raw', 'key.fields' = '" + group + "',"
            + "'value.format' = 'avro-confluent', 'value.avro-confluent.url' = '" + option("registry") + "',"
            + "'sink.delivery-guarantee' = 'exactly-once', 'sink.transactional-id-prefix' = '" + option("application") + "',"
            + "'properties.transaction.timeout.ms' = '600000', 'properties.compression.type' = 'lz4',"
            + "'properties.linger.ms' = '20', 'properties.batch.size' = '262144')");
        tables.executeSql("INSERT INTO results SELECT window_start, window_end, " + group + ", COUNT(*),"
            + " SUM(CAST(passenger_count AS BIGINT)), SUM(CAST(trip_duration AS BIGINT)),"
            + " AVG(CAST(trip_duration AS DOUBLE)), AVG(gc_distance)"
            + " FROM TABLE(TUMBLE(TABLE trips, DESCRIPTOR(pickup_at), INTERVAL '"
            + Long.parseLong(option("window.seconds")) / 3600 + "' HOUR(4)))"
            + " GROUP BY window_start, window_end, " + group).await();
        System.exit(0);
    }

    private FlinkPeer() {}
}
