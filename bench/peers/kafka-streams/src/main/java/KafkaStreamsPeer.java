import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.avro.Schema;
import org.apache.avro.SchemaBuilder;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericDatumWriter;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.BinaryEncoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.io.EncoderFactory;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.Repartitioned;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.processor.TimestampExtractor;
import org.apache.kafka.streams.processor.api.ContextualFixedKeyProcessor;
import org.apache.kafka.streams.processor.api.FixedKeyProcessor;
import org.apache.kafka.streams.processor.api.FixedKeyRecord;
import org.apache.kafka.streams.processor.api.RecordMetadata;
import org.apache.kafka.streams.state.WindowStore;

/**
 * The benchmark's job on Kafka Streams, exactly once, with one thread: from the start of a topic until so many rows are
 * aggregated. What it needs to know are system properties, see {@code bench/src/peers.rs}.
 *
 * <p>It tells results as they change, as Kafka Streams does unless it is told otherwise: the last one of a window and group
 * counts. Its grace is a year: with a short one, a catch-up drops most rows, as it reads partitions unevenly.
 */
public final class KafkaStreamsPeer {
    private static final Duration GRACE = Duration.ofDays(365);

    /** What the job reads of a trip. */
    private static final class Trip {
        int vendor;
        long pickupAt;
        int passengers;
        int duration;
        double distance;
    }

    /** What it keeps of a window and group. */
    private static final class Sums {
        long trips;
        long passengers;
        long duration;
        double distance;
    }

    /** Framed Avro to a trip, through a reader schema with the job's columns alone. One for each thread that reads. */
    private static final class TripDeserializer implements Deserializer<Trip> {
        private final GenericDatumReader<GenericRecord> reader;
        private GenericRecord record;
        private BinaryDecoder decoder;

        TripDeserializer(Schema writer) {
            Schema columns = SchemaBuilder.record(writer.getName()).namespace(writer.getNamespace()).fields()
                .requiredInt("vendor_id").requiredLong("pickup_at").requiredInt("passenger_count")
                .requiredDouble("gc_distance").requiredInt("trip_duration").endRecord();
            GenericData data = new GenericData();
            data.setFastReaderEnabled(true);
            reader = new GenericDatumReader<>(writer, columns, data);
        }

        @Override
        public Trip deserialize(String topic, byte[] value) {
            try {
                decoder = DecoderFactory.get().binaryDecoder(value, 5, value.length - 5, decoder);
                record = reader.read(record, decoder);
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
            Trip trip = new Trip();
            trip.vendor = (Integer) record.get(0);
            trip.pickupAt = (Long) record.get(1);
            trip.passengers = (Integer) record.get(2);
            trip.distance = (Double) record.get(3);
            trip.duration = (Integer) record.get(4);
            return trip;
        }
    }

    /** Event time. What comes back from the repartition topic has it as the record's time already. */
    public static final class PickupTime implements TimestampExtractor {
        @Override
        public long extract(ConsumerRecord<Object, Object> record, long partitionTime) {
            return ((Trip) record.value()).pickupAt;
        }
    }

    private static final Serde<Trip> TRIP = Serdes.serdeFrom(
        (topic, trip) -> ByteBuffer.allocate(16).putInt(trip.passengers).putInt(trip.duration).putDouble(trip.distance).array(),
        (topic, bytes) -> {
            ByteBuffer buffer = ByteBuffer.wrap(bytes);
            Trip trip = new Trip();
            trip.passengers = buffer.getInt();
            trip.duration = buffer.getInt();
            trip.distance = buffer.getDouble();
            return trip;
        });

    private static final Serde<Sums> SUMS = Serdes.serdeFrom(
        (topic, sums) -> sums == null ? null : ByteBuffer.allocate(32)
            .putLong(sums.trips).putLong(sums.passengers).putLong(sums.duration).putDouble(sums.distance).array(),
        (topic, bytes) -> {
            if (bytes == null) {
                return null;
            }
            ByteBuffer buffer = ByteBuffer.wrap(bytes);
            Sums sums = new Sums();
            sums.trips = buffer.getLong();
            sums.passengers = buffer.getLong();
            sums.duration = buffer.getLong();
            sums.distance = buffer.getDouble();
            return sums;
        });

    /** Results as framed Avro. Only the stream thread comes here. */
    private static final class Results {
        private final Schema schema;
        private final int id;
        private final String group;
        private final GenericDatumWriter<GenericRecord> writer;
        private final ByteArrayOutputStream bytes = new ByteArrayOutputStream(128);
        private BinaryEncoder encoder;

        Results(Schema schema, int id, String group) {
            this.schema = schema;
            this.id = id;
            this.group = group;
            writer = new GenericDatumWriter<>(schema);
        }

        byte[] encode(long start, long end, Object key, Sums sums) {
            GenericRecord record = new GenericData.Record(schema);
            record.put("window_start", start);
            record.put("window_end", end);
            record.put(group, key);
            record.put("trip_count", sums.trips);
            record.put("passenger_count", sums.passengers);
            record.put("total_trip_duration", sums.duration);
            record.put("average_trip_duration", (double) sums.duration / sums.trips);
            record.put("average_trip_distance", sums.distance / sums.trips);
            bytes.reset();
            bytes.writeBytes(ByteBuffer.allocate(5).put((byte) 0).putInt(id).array());
            try {
                encoder = EncoderFactory.get().binaryEncoder(bytes, encoder);
                writer.write(record, encoder);
                encoder.flush();
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
            return bytes.toByteArray();
        }
    }

    private static String option(String name) {
        String value = System.getProperty(name);
        if (value == null) {
            throw new IllegalArgumentException("-D" + name + "=… is missing");
        }
        return value;
    }

    private static Schema schema(String option) throws IOException {
        return new Schema.Parser().parse(Files.readString(Path.of(option(option))));
    }

    /** How many records of the job's last input have been taken: each one once, even if a transaction is done again. */
    private static final class Taken {
        private final long rows;
        private final CountDownLatch done = new CountDownLatch(1);
        private final Map<Integer, Long> last = new HashMap<>();
        private long taken;

        Taken(long rows) {
            this.rows = rows;
        }

        /** The one stream thread comes here, and no other. */
        void take(int partition, long offset) {
            if (offset > last.getOrDefault(partition, -1L)) {
                last.put(partition, offset);
                if (++taken == rows) {
                    done.countDown();
                }
            }
        }

        <K> FixedKeyProcessor<K, Trip, Trip> processor() {
            return new ContextualFixedKeyProcessor<>() {
                @Override
                public void process(FixedKeyRecord<K, Trip> record) {
                    RecordMetadata at = context().recordMetadata().orElseThrow();
                    take(at.partition(), at.offset());
                    context().forward(record);
                }
            };
        }
    }

    /** The same job for groups of any kind. */
    private static <K> void aggregate(KStream<K, Trip> trips, Serde<K> key, Duration window, Results results,
        Taken taken) {
        trips.processValues(taken::<K>processor)
            .groupByKey(Grouped.with(key, TRIP))
            .windowedBy(TimeWindows.ofSizeAndGrace(window, GRACE))
            .aggregate(Sums::new, (group, trip, sums) -> {
                sums.trips++;
                sums.passengers += trip.passengers;
                sums.duration += trip.duration;
                sums.distance += trip.distance;
                return sums;
            }, Materialized.<K, Sums, WindowStore<Bytes, byte[]>>as("sums").withKeySerde(key).withValueSerde(SUMS)
                .withRetention(window.plus(GRACE)))
            .toStream()
            .map((at, sums) -> KeyValue.pair(at.key(),
                results.encode(at.window().start(), at.window().end(), at.key(), sums)))
            .to(option("output"), Produced.with(key, Serdes.ByteArray()));
    }

    public static void main(String[] arguments) throws Exception {
        Schema written = schema("trip.schema");
        String group = option("group");
        Results results = new Results(schema("result.schema"), Integer.parseInt(option("result.id")), group);
        Duration window = Duration.ofSeconds(Long.parseLong(option("window.seconds")));
        long rows = Long.parseLong(option("rows"));

        Properties properties = new Properties();
        properties.put(StreamsConfig.APPLICATION_ID_CONFIG, option("application"));
        properties.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, option("brokers"));
        properties.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        properties.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        properties.put(StreamsConfig.STATE_DIR_CONFIG, option("folder"));
        properties.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        // Larger polls and batches than the defaults: they only help it.
        properties.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        properties.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 5000);
        // On a busy machine a transaction may outlast the ten seconds that it has otherwise, and be done again.
        properties.put(StreamsConfig.producerPrefix(ProducerConfig.TRANSACTION_TIMEOUT_CONFIG), 600000);
        properties.put(StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), "lz4");
        properties.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 262144);
        properties.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), 20);

        Taken taken = new Taken(rows);
        ThreadLocal<TripDeserializer> readers = ThreadLocal.withInitial(() -> new TripDeserializer(written));
        Serde<Trip> input = Serdes.serdeFrom((topic, trip) -> null, (topic, value) -> readers.get().deserialize(topic, value));
        StreamsBuilder builder = new StreamsBuilder();
        KStream<String, Trip> trips = builder.stream(option("topic"),
            Consumed.with(Serdes.String(), input).withTimestampExtractor(new PickupTime()));
        if (group.equals("id")) {
            // The id is the record's key: grouping by it needs no repartition topic.
            aggregate(trips, Serdes.String(), window, results, taken);
        } else {
            aggregate(trips.selectKey((id, trip) -> trip.vendor)
                .repartition(Repartitioned.with(Serdes.Integer(), TRIP).withName("vendors")),
                Serdes.Integer(), window, results, taken);
        }
        KafkaStreams streams = new KafkaStreams(builder.build(), properties);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            Runtime.getRuntime().halt(3);
            return null;
        });
        streams.start();
        taken.done.await();
        // Closing commits what is aggregated, and its results.
        if (!streams.close(Duration.ofMinutes(5))) {
            System.err.println("it does not end");
            Runtime.getRuntime().halt(4);
        }
    }

    private KafkaStreamsPeer() {}
}
