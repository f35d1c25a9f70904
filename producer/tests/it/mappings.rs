//! Mappings: what is wrong is said at once, and rows become the Avro that another reader understands.

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use producer::Reason;
use producer::input::{Mark, RowReader, Taken};
use producer::mapping::{Mapping, MappingError, Rejection, RowEncoder};
use proptest::prelude::*;
use schemas::shipped::TAXI_TRIP;

pub fn compile(mapping: &str, schema: &str) -> Result<RowEncoder, MappingError> {
    RowEncoder::compile(&Mapping::read(mapping, "test.toml"), schema)
}

/// Encodes the rows of a text, and decodes them with apache-avro.
pub fn convert(
    encoder: &mut RowEncoder,
    schema: &str,
    text: &[u8],
) -> Vec<Result<Vec<(String, Value)>, Rejection>> {
    let schema = Schema::parse_str(schema).unwrap();
    let decoder = GenericDatumReader::builder(&schema).build().unwrap();
    let mut reader = RowReader::new(text, Mark::start());
    let mut results = Vec::new();
    if encoder.has_header() {
        let Some(Taken::Row(row)) = reader.next_row().unwrap() else {
            panic!("no header")
        };
        let names: Vec<_> = (0..row.len())
            .map(|i| String::from_utf8(row.field(i).to_vec()).unwrap())
            .collect();
        encoder.bind(&names).unwrap();
    }
    while let Some(taken) = reader.next_row().unwrap() {
        results.push(match taken {
            Taken::Broken(broken) => Err(Rejection {
                reason: broken.reason,
                column: None,
                detail: broken.reason.explanation().into(),
            }),
            Taken::Row(row) => {
                let mut out = vec![7];
                match encoder.encode(&row, &mut out) {
                    Err(rejection) => {
                        assert_eq!(out, [7], "a rejected row leaves the buffer as it was");
                        Err(rejection)
                    }
                    Ok(()) => {
                        let mut bytes = &out[1..];
                        let Value::Record(fields) = decoder.read_value(&mut bytes).unwrap() else {
                            panic!()
                        };
                        assert!(bytes.is_empty());
                        Ok(fields)
                    }
                }
            }
        });
    }
    results
}

const KAGGLE_HEADER: &str = "id,vendor_id,pickup_datetime,dropoff_datetime,passenger_count,pickup_longitude,pickup_latitude,dropoff_longitude,dropoff_latitude,store_and_fwd_flag,trip_duration";

fn kaggle(rows: &[&str]) -> Vec<Result<Vec<(String, Value)>, Rejection>> {
    let mut encoder = RowEncoder::compile(&Mapping::shipped("kaggle").unwrap(), TAXI_TRIP).unwrap();
    convert(
        &mut encoder,
        TAXI_TRIP,
        format!("{KAGGLE_HEADER}\n{}", rows.join("\n")).as_bytes(),
    )
}

#[test]
fn shipped_mappings_fit_the_shipped_schema_and_are_chosen_by_their_header() {
    for name in Mapping::shipped_names() {
        RowEncoder::compile(&Mapping::shipped(name).unwrap(), TAXI_TRIP).unwrap();
    }
    let names = |header: &str| header.split(',').map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(
        Mapping::for_header(&names(KAGGLE_HEADER)).unwrap().name(),
        "kaggle"
    );
    let ours = "id,vendorId,pickupDate,dropoffDate,passengerCount,pickupLongitude,pickupLatitude,dropoffLongitude,dropoffLatitude,storeAndFwdFlag,gcDistance,tripDuration,googleDistance,googleDuration";
    assert_eq!(Mapping::for_header(&names(ours)).unwrap().name(), "headway");
    assert!(Mapping::for_header(&names(&format!("{KAGGLE_HEADER},more"))).is_none());
    assert!(Mapping::for_header(&names("id0190469,2,1/1/16 0:00")).is_none());
}

#[test]
fn aws_rows_are_standardised() {
    let mut encoder = RowEncoder::compile(&Mapping::shipped("aws").unwrap(), TAXI_TRIP).unwrap();
    let rows = convert(
        &mut encoder,
        TAXI_TRIP,
        b"id1,2,1/1/16 0:00,1/1/16 0:14,5,-73.98174286,40.71915817,-73.93882751,40.82918167,N,10,849,15309,1109\nid2,1,7/4/16 13:05,7/4/16 13:06,0,-73.9,40.7,-73.8,40.8,Y,0,60,,\n",
    );
    let first = rows[0].as_ref().unwrap();
    let value = |name: &str| {
        first
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.clone())
            .unwrap()
    };
    assert_eq!(value("id"), Value::String("id1".into()));
    assert_eq!(
        value("pickup_at"),
        Value::TimestampMillis(1_451_624_400_000)
    );
    assert_eq!(
        value("dropoff_at"),
        Value::TimestampMillis(1_451_625_240_000)
    );
    assert_eq!(value("gc_distance"), Value::Double(16.09344));
    assert_eq!(
        value("google_distance"),
        Value::Union(1, Box::new(Value::Int(15309)))
    );
    assert_eq!(value("source"), Value::String("aws".into()));
    let second = rows[1].as_ref().unwrap();
    assert_eq!(second[2].1, Value::TimestampMillis(1_467_651_900_000));
    assert_eq!(second[12].1, Value::Union(0, Box::new(Value::Null)));
}

#[test]
fn what_breaks_a_rule_is_rejected_with_its_reason_and_column() {
    let good = "id1,2,2016-03-13 01:59:00,2016-03-13 03:00:00,1,-73.98,40.76,-73.96,40.77,N,60";
    let change = |column: usize, text: &str| {
        let mut fields: Vec<&str> = good.split(',').collect();
        fields[column] = text;
        fields.join(",")
    };
    let table = [
        (change(0, ""), Reason::MissingValue, Some("id")),
        (change(0, "  "), Reason::MissingValue, Some("id")),
        (change(1, "two"), Reason::BadNumber, Some("vendor_id")),
        (change(1, "1.5"), Reason::BadNumber, Some("vendor_id")),
        (change(1, "-1"), Reason::OutOfRange, Some("vendor_id")),
        (
            change(1, "3000000000"),
            Reason::OutOfRange,
            Some("vendor_id"),
        ),
        (
            change(1, "99999999999999999999"),
            Reason::OutOfRange,
            Some("vendor_id"),
        ),
        (
            change(2, "2016-03-13"),
            Reason::BadDate,
            Some("pickup_datetime"),
        ),
        (
            change(2, "2016-02-30 00:00:00"),
            Reason::BadDate,
            Some("pickup_datetime"),
        ),
        (
            change(2, "2016-03-13 02:30:00"),
            Reason::NonexistentTime,
            Some("pickup_datetime"),
        ),
        (
            change(3, "2016-03-13 01:58:59"),
            Reason::NotInOrder,
            Some("dropoff_datetime"),
        ),
        (
            change(5, "-180.1"),
            Reason::OutOfRange,
            Some("pickup_longitude"),
        ),
        (
            change(5, "nan"),
            Reason::BadNumber,
            Some("pickup_longitude"),
        ),
        (
            change(5, "inf"),
            Reason::BadNumber,
            Some("pickup_longitude"),
        ),
        (change(6, "91"), Reason::OutOfRange, Some("pickup_latitude")),
        (
            change(9, "X"),
            Reason::BadFormat,
            Some("store_and_fwd_flag"),
        ),
        (
            change(9, "NY"),
            Reason::BadFormat,
            Some("store_and_fwd_flag"),
        ),
        (
            "id1,2,2016-03-13 01:59:00".into(),
            Reason::TooFewColumns,
            None,
        ),
        (format!("{good},1"), Reason::TooManyColumns, None),
        (
            good.replace("-73.98,40.76", "0,0.0"),
            Reason::ZeroPair,
            Some("pickup_longitude"),
        ),
    ];
    for (row, reason, column) in table {
        let rejection = kaggle(&[&row])[0].clone().unwrap_err();
        assert_eq!(
            (rejection.reason, rejection.column.as_deref()),
            (reason, column),
            "{row}: {}",
            rejection.detail
        );
    }
    assert!(kaggle(&[good])[0].is_ok());
    // one coordinate of 0 is no pair
    assert!(kaggle(&[&change(5, "0")])[0].is_ok());
    let mut encoder = RowEncoder::compile(&Mapping::shipped("kaggle").unwrap(), TAXI_TRIP).unwrap();
    let bytes = [
        KAGGLE_HEADER.as_bytes(),
        b"\n",
        &change(9, "?").into_bytes(),
    ]
    .concat();
    let bytes: Vec<u8> = bytes
        .into_iter()
        .map(|byte| if byte == b'?' { 0xff } else { byte })
        .collect();
    let rejection = convert(&mut encoder, TAXI_TRIP, &bytes)[0]
        .clone()
        .unwrap_err();
    assert_eq!(
        (rejection.reason, rejection.column.as_deref()),
        (Reason::BadUtf8, Some("store_and_fwd_flag"))
    );
}

#[test]
fn everything_that_is_wrong_with_a_mapping_is_said_at_once_with_its_line() {
    let wrong = r#"name = "x"
colour = "red"
zone = "America/Nowhere"
formats = ["%Y-%m"]
key = "nobody"

[fields.id]
column = "id"
regex = "("

[fields.vendor_id]
column = 3
unit = "miles to hours"
min = 5
max = 4

[fields.pickup_at]
column = "p"

[fields.dropoff_at]
column = "d"
not_before = "never"

[fields.trip_duration]
constant = "long"
required = false

[fields.gc_distance]
haversine_km = ["a", "b"]

[fields.source]
column = "s"
constant = "s"

[fields.tip]
column = "tip"
shape = "round"
"#;
    let error = compile(wrong, TAXI_TRIP).unwrap_err();
    let text = error.to_string();
    for (line, part) in [
        (2, "unknown key `colour`"),
        (3, "`America/Nowhere` is no time zone"),
        (4, "lacks a day"),
        (5, "the key `nobody`"),
        (9, "no regular expression"),
        (12, "is a position"),
        (13, "no conversion"),
        (15, "holds nothing"),
        (22, "names `never`"),
        (25, "constant does not fit"),
        (26, "can't be false"),
        (29, "must name four fields"),
        (31, "once"),
        (35, "the schema has no field `tip`"),
        (37, "unknown key `shape`"),
    ] {
        let found = error
            .problems
            .iter()
            .any(|problem| problem.line == line && problem.what.contains(part));
        assert!(found, "line {line}: {part} is not in\n{text}");
    }
    assert!(text.contains("`passenger_count` is not mapped"), "{text}");
    let syntax = compile("name = \"x\nkey = 1", TAXI_TRIP).unwrap_err();
    assert!(syntax.to_string().contains("line 1: not TOML"), "{syntax}");
    assert!(!syntax.to_string().contains("not mapped"), "{syntax}");
}

#[test]
fn a_header_without_the_mappings_columns_says_which() {
    let mut encoder = RowEncoder::compile(&Mapping::shipped("kaggle").unwrap(), TAXI_TRIP).unwrap();
    let header: Vec<String> = KAGGLE_HEADER
        .replace("vendor_id", "vendor")
        .split(',')
        .map(str::to_owned)
        .collect();
    let error = encoder.bind(&header).unwrap_err().to_string();
    assert!(
        error.contains("no column `vendor_id`") && error.contains("kaggle"),
        "{error}"
    );
    let mut twice: Vec<String> = KAGGLE_HEADER.split(',').map(str::to_owned).collect();
    twice.push("id".into());
    assert!(
        encoder
            .bind(&twice)
            .unwrap_err()
            .to_string()
            .contains("`id` is there twice")
    );
}

#[test]
fn every_type_that_a_column_can_have_is_written_as_avro_has_it() {
    let schema = r#"{"type":"record","name":"R","fields":[
        {"name":"i","type":"int"},{"name":"l","type":["long","null"]},{"name":"f","type":"float"},
        {"name":"d","type":"double"},{"name":"b","type":"boolean"},{"name":"s","type":"string"},
        {"name":"y","type":"bytes"},{"name":"e","type":{"type":"enum","name":"E","symbols":["A","B"]}},
        {"name":"day","type":{"type":"int","logicalType":"date"}},
        {"name":"us","type":{"type":"long","logicalType":"timestamp-micros"}},
        {"name":"km","type":["null","double"],"default":null},{"name":"absent","type":["null","string"],"default":null}]}"#;
    let mapping = r#"
        name = "all"
        columns = 11
        zone = "UTC"
        formats = ["%F"]
        fields.i.column = 1
        fields.l.column = 2
        fields.f.column = 3
        fields.d.column = 4
        fields.b.column = 5
        fields.s.column = 6
        fields.y.column = 7
        fields.e.column = 8
        fields.day.column = 9
        fields.us = { column = 10, formats = ["epoch_ms"] }
        fields.km = { column = 11, unit = "m to km" }
    "#;
    let mut encoder = compile(mapping, schema).unwrap();
    let rows = convert(&mut encoder, schema, "-2147483648,,1.5,-0.1,true,\"a,é\",x,B,1969-12-31,-1,\n1,9223372036854775807,0,0,0,b,y,A,2016-01-01,1,1500\n1,1,1,1,maybe,b,y,A,2016-01-01,1,1\n1,1,1,1,1,b,y,C,2016-01-01,1,1\n".as_bytes());
    let values = |index: usize| -> Vec<Value> {
        rows[index]
            .clone()
            .unwrap()
            .into_iter()
            .map(|(_, value)| value)
            .collect()
    };
    let null = || Value::Union(0, Box::new(Value::Null));
    assert_eq!(
        values(0),
        [
            Value::Int(i32::MIN),
            Value::Union(1, Box::new(Value::Null)),
            Value::Float(1.5),
            Value::Double(-0.1),
            Value::Boolean(true),
            Value::String("a,é".into()),
            Value::Bytes(b"x".to_vec()),
            Value::Enum(1, "B".into()),
            Value::Date(-1),
            Value::TimestampMicros(-1000),
            null(),
            null(),
        ]
    );
    let second = values(1);
    assert_eq!(second[1], Value::Union(0, Box::new(Value::Long(i64::MAX))));
    assert_eq!(second[10], Value::Union(1, Box::new(Value::Double(1.5))));
    assert_eq!(rows[2].clone().unwrap_err().reason, Reason::BadBoolean);
    assert_eq!(rows[3].clone().unwrap_err().reason, Reason::BadSymbol);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn a_row_of_any_bytes_is_encoded_or_rejected(bytes in prop::collection::vec(
        prop_oneof![Just(b','), Just(b'\n'), Just(b'"'), Just(b'0'), Just(b'-'), Just(b' '), any::<u8>()], 0..200)) {
        let mut encoder = RowEncoder::compile(&Mapping::shipped("aws").unwrap(), TAXI_TRIP).unwrap();
        convert(&mut encoder, TAXI_TRIP, &bytes);
    }

    #[test]
    fn whole_numbers_survive(number in any::<i64>()) {
        let schema = r#"{"type":"record","name":"R","fields":[{"name":"l","type":"long"}]}"#;
        let mut encoder = compile("name = \"x\"\ncolumns = 1\nfields.l.column = 1", schema).unwrap();
        let rows = convert(&mut encoder, schema, number.to_string().as_bytes());
        prop_assert_eq!(&rows[0].as_ref().unwrap()[0].1, &Value::Long(number));
    }
}
