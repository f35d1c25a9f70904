//! One trip: when, from where to where, how long.

use std::io::{self, Write};

use chrono::{Datelike, TimeZone, Timelike};
use chrono_tz::America::New_York;
use rand::Rng;

/// A trip as a row tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct Trip {
    /// Its number, from 0.
    pub number: u64,
    vendor_id: u8,
    pickup_s: i64,
    duration_s: i64,
    passengers: u8,
    pickup: Point,
    dropoff: Point,
    held_back: bool,
    gc_distance_km: f64,
    routed: Option<(i64, i64)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    longitude: f64,
    latitude: f64,
}

/// A place where many trips begin and end: weight, longitude, latitude, spread in degrees.
const HOT_SPOTS: [(f64, f64, f64, f64); 8] = [
    (0.30, -73.9851, 40.7553, 0.009), // Midtown
    (0.17, -73.9570, 40.7740, 0.008), // Upper East Side
    (0.16, -73.9950, 40.7305, 0.008), // Village
    (0.12, -73.9800, 40.7840, 0.007), // Upper West Side
    (0.11, -74.0100, 40.7090, 0.005), // Financial District
    (0.06, -73.9580, 40.7150, 0.010), // Williamsburg
    (0.05, -73.8726, 40.7740, 0.003), // La Guardia
    (0.03, -73.7822, 40.6446, 0.003), // Kennedy
];

/// How busy each hour of a day is, relative to the average, New York time.
const HOURS: [f64; 24] = [
    0.85, 0.60, 0.44, 0.32, 0.24, 0.25, 0.50, 0.90, 1.12, 1.14, 1.10, 1.13, 1.17, 1.16, 1.20, 1.16,
    1.05, 1.25, 1.50, 1.55, 1.46, 1.42, 1.32, 1.12,
];

/// How busy each weekday is, from Monday.
const WEEKDAYS: [f64; 7] = [0.90, 0.97, 1.01, 1.05, 1.09, 1.07, 0.91];

/// How many trips begin per hour at a time (seconds since 1970), when an average day has `trips_per_day`.
pub fn arrivals_per_hour(at_s: i64, trips_per_day: f64) -> f64 {
    let (hour, weekday) = local(at_s).map_or((12, 0), |at| {
        (at.hour(), at.weekday().num_days_from_monday())
    });
    (trips_per_day / 24.0 * HOURS[hour as usize] * WEEKDAYS[weekday as usize]).max(1e-6)
}

/// Makes trips.
pub struct TripMaker;

impl TripMaker {
    pub fn make(&self, rng: &mut impl Rng, number: u64, pickup_s: i64) -> Trip {
        let pickup = place(rng);
        // A few never move; a few go far out.
        let dropoff = match rng.random_range(0..1000) {
            0..4 => pickup,
            4..10 => Point {
                longitude: pickup.longitude + rng.random_range(-0.4..0.4),
                latitude: pickup.latitude + rng.random_range(-0.3..0.3),
            },
            // The instrument lost one coordinate.
            10 => Point {
                longitude: 0.0,
                latitude: pickup.latitude,
            },
            _ => place(rng),
        };
        let gc_distance_km = distance_km(pickup, dropoff);
        let hour = local(pickup_s).map_or(12, |at| at.hour());
        let km_per_hour = match hour {
            0..=5 => 26.0,
            6 | 19.. => 17.0,
            _ => 12.0,
        } * rng.random_range(0.7..1.3);
        let road_km = if dropoff.longitude == 0.0 {
            3.0
        } else {
            gc_distance_km * rng.random_range(1.2..1.5)
        };
        let duration_s = (road_km / km_per_hour * 3600.0) as i64 + rng.random_range(30..240);
        let passengers = match rng.random_range(0..1000) {
            0..2 => 0,
            2..710 => 1,
            710..855 => 2,
            855..895 => 3,
            895..915 => 4,
            915..967 => 5,
            _ => 6,
        };
        let routed = rng.random_bool(0.9).then(|| {
            (
                (road_km * 1000.0) as i64,
                (duration_s as f64 * rng.random_range(0.75..1.05)) as i64,
            )
        });
        Trip {
            number,
            vendor_id: if rng.random_bool(0.465) { 1 } else { 2 },
            pickup_s,
            duration_s,
            passengers,
            pickup,
            dropoff,
            held_back: rng.random_bool(0.0055),
            gc_distance_km,
            routed,
        }
    }
}

impl Trip {
    /// Writes it as a row, its end of line included.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let time = |at_s| {
            local(at_s)
                .map(|at| at.format("%Y-%m-%d %H:%M:%S").to_string())
                .unwrap_or_default()
        };
        write!(
            out,
            "id{:08},{},{},{},{},{:.8},{:.8},{:.8},{:.8},{},{:.6},{},",
            self.number,
            self.vendor_id,
            time(self.pickup_s),
            time(self.pickup_s + self.duration_s),
            self.passengers,
            self.pickup.longitude,
            self.pickup.latitude,
            self.dropoff.longitude,
            self.dropoff.latitude,
            if self.held_back { 'Y' } else { 'N' },
            self.gc_distance_km,
            self.duration_s,
        )?;
        match self.routed {
            Some((metres, seconds)) => writeln!(out, "{metres},{seconds}"),
            None => writeln!(out, ","),
        }
    }
}

fn local(at_s: i64) -> Option<chrono::DateTime<chrono_tz::Tz>> {
    New_York.timestamp_opt(at_s, 0).single()
}

fn place(rng: &mut impl Rng) -> Point {
    let mut left: f64 = rng.random_range(0.0..1.0);
    let spot = HOT_SPOTS.iter().find(|spot| {
        left -= spot.0;
        left < 0.0
    });
    let (_, longitude, latitude, spread) = *spot.unwrap_or(&HOT_SPOTS[0]);
    // Irwin–Hall: the sum of uniform numbers is near enough to a bell, and the same everywhere.
    let mut bell = || (0..6).map(|_| rng.random_range(-1.0..1.0)).sum::<f64>() / 1.4;
    Point {
        longitude: longitude + bell() * spread,
        latitude: latitude + bell() * spread,
    }
}

/// The great-circle distance by the haversine formula, on a sphere of the Earth's mean radius (6,371.0088 km).
fn distance_km(a: Point, b: Point) -> f64 {
    let (lat_a, lat_b) = (a.latitude.to_radians(), b.latitude.to_radians());
    let lat = (lat_b - lat_a) / 2.0;
    let lon = (b.longitude - a.longitude).to_radians() / 2.0;
    let h = lat.sin().powi(2) + lat_a.cos() * lat_b.cos() * lon.sin().powi(2);
    2.0 * 6371.0088 * h.sqrt().asin()
}
