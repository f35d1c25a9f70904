//! The events of Nexmark: people open auctions, and others bid.
//!
//! Written from the benchmark's description (Tucker, Tufte, Papadimos, Maier: "NEXMark, a benchmark for queries over data
//! streams", 2002) with the shares and ratios that Apache Beam's suite gave it and Flink's took over. Of 50 events in a
//! row the first is a person, three are auctions, 46 are bids. Each event depends on the seed and its number alone.

/// So many events in a row begin with a person and so many auctions; the others are bids.
const CYCLE: u64 = 50;
const AUCTIONS: u64 = 3;

/// The ids of the first person, auction and category.
const FIRST_PERSON: u64 = 1_000;
const FIRST_AUCTION: u64 = 1_000;
const FIRST_CATEGORY: u64 = 10;
const CATEGORIES: u64 = 5;

/// Of so many sellers, bids and bidders one is not the hot one of its time.
const HOT_SELLERS: u64 = 4;
const HOT_AUCTIONS: u64 = 2;
const HOT_BIDDERS: u64 = 4;
/// A person or an auction is hot until so many more have come.
const HOT_FOR: u64 = 100;

/// Others than the hot ones are among so many latest, or are one of the next few, which nobody has seen yet.
const ACTIVE_PEOPLE: u64 = 1_000;
const OPEN_AUCTIONS: u64 = 100;
const AHEAD: u64 = 10;

/// How many bytes a record has, more or less.
const PERSON_BYTES: usize = 200;
const AUCTION_BYTES: usize = 500;
const BID_BYTES: usize = 100;

const FIRST_NAMES: &[&str] = &[
    "Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter",
];
const LAST_NAMES: &[&str] = &[
    "Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris",
];
const STATES: &[&str] = &["AZ", "CA", "ID", "OR", "WA", "WY"];
const CITIES: &[&str] = &[
    "Phoenix",
    "Los Angeles",
    "San Francisco",
    "Boise",
    "Portland",
    "Bend",
    "Redmond",
    "Seattle",
    "Kent",
    "Cheyenne",
];

#[derive(Clone, Debug, PartialEq)]
pub struct Person {
    pub id: i64,
    pub name: String,
    pub email_address: String,
    pub credit_card: String,
    pub city: &'static str,
    pub state: &'static str,
    pub date_time: i64,
    pub extra: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Auction {
    pub id: i64,
    pub item_name: String,
    pub description: String,
    pub initial_bid: i64,
    pub reserve: i64,
    pub date_time: i64,
    pub expires: i64,
    pub seller: i64,
    pub category: i64,
    pub extra: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Bid {
    pub auction: i64,
    pub bidder: i64,
    pub price: i64,
    pub date_time: i64,
    pub extra: String,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Person(Person),
    Auction(Auction),
    Bid(Bid),
}

/// What the events are made from.
#[derive(Clone, Copy, Debug)]
pub struct Generator {
    pub seed: u64,
    /// The first event's time, milliseconds since 1970.
    pub first_ms: i64,
    pub events_per_second: u64,
    /// Within so many events the order is another one than that of their times; not a multiple of 953. 1: in order.
    pub group: u64,
}

impl Generator {
    /// The first `count` events, in the order in which they come.
    pub fn events(&self, count: u64) -> impl Iterator<Item = Event> {
        let generator = *self;
        (0..count).map(move |place| {
            let begin = place - place % generator.group;
            generator.event(begin + place * 953 % generator.group)
        })
    }

    /// How far behind the latest event's time one may come, at most, in milliseconds.
    pub fn disorder_ms(&self) -> i64 {
        self.time(self.group - 1) - self.first_ms
    }

    fn time(&self, number: u64) -> i64 {
        self.first_ms + (number * 1_000 / self.events_per_second) as i64
    }

    fn event(&self, number: u64) -> Event {
        let mut random = Random::of(self.seed, number);
        match number % CYCLE {
            0 => Event::Person(self.person(number, &mut random)),
            1..=AUCTIONS => Event::Auction(self.auction(number, &mut random)),
            _ => Event::Bid(self.bid(number, &mut random)),
        }
    }

    fn person(&self, number: u64, random: &mut Random) -> Person {
        let name = format!(
            "{} {}",
            random.one_of(FIRST_NAMES),
            random.one_of(LAST_NAMES)
        );
        let email_address = format!("{}@{}.com", random.text(7), random.text(5));
        let digits: Vec<String> = (0..4)
            .map(|_| format!("{:04}", random.below(10_000)))
            .collect();
        let (city, state) = (random.one_of(CITIES), random.one_of(STATES));
        let size = 16 + name.len() + email_address.len() + 19 + city.len() + state.len();
        Person {
            id: (FIRST_PERSON + last_person(number)) as i64,
            credit_card: digits.join(" "),
            date_time: self.time(number),
            extra: random.extra(size, PERSON_BYTES),
            name,
            email_address,
            city,
            state,
        }
    }

    fn auction(&self, number: u64, random: &mut Random) -> Auction {
        let seller = match random.below(HOT_SELLERS) {
            0 => active_person(number, random),
            _ => last_person(number) / HOT_FOR * HOT_FOR,
        };
        let (item_name, description) = (random.text(20), random.text(100));
        let (initial_bid, more) = (random.price(), random.price());
        // So many events pass while as many auctions are opened as are open at a time.
        let ahead = OPEN_AUCTIONS * CYCLE / AUCTIONS;
        let horizon_ms = (self.time(number + ahead) - self.time(number)) as u64;
        let size = 56 + item_name.len() + description.len();
        Auction {
            id: (FIRST_AUCTION + last_auction(number)) as i64,
            initial_bid,
            reserve: initial_bid + more,
            date_time: self.time(number),
            expires: self.time(number) + 1 + random.below((horizon_ms * 2).max(1)) as i64,
            seller: (FIRST_PERSON + seller) as i64,
            category: (FIRST_CATEGORY + random.below(CATEGORIES)) as i64,
            extra: random.extra(size, AUCTION_BYTES),
            item_name,
            description,
        }
    }

    fn bid(&self, number: u64, random: &mut Random) -> Bid {
        let last = last_auction(number);
        let auction = match random.below(HOT_AUCTIONS) {
            0 => {
                let first = last.saturating_sub(OPEN_AUCTIONS);
                first + random.below(last - first + 1 + AHEAD)
            }
            _ => last / HOT_FOR * HOT_FOR,
        };
        let bidder = match random.below(HOT_BIDDERS) {
            0 => active_person(number, random),
            // The hot seller's neighbour: nobody bids for what is his own that often.
            _ => last_person(number) / HOT_FOR * HOT_FOR + 1,
        };
        Bid {
            auction: (FIRST_AUCTION + auction) as i64,
            bidder: (FIRST_PERSON + bidder) as i64,
            price: random.price(),
            date_time: self.time(number),
            extra: random.extra(32, BID_BYTES),
        }
    }
}

/// The latest person at an event, counted from 0.
fn last_person(number: u64) -> u64 {
    number / CYCLE
}

/// The latest auction at an event, counted from 0; before the first one, that.
fn last_auction(number: u64) -> u64 {
    let opened = number / CYCLE * AUCTIONS + (number % CYCLE).min(AUCTIONS);
    opened.saturating_sub(1)
}

fn active_person(number: u64, random: &mut Random) -> u64 {
    let people = last_person(number) + 1;
    let active = people.min(ACTIVE_PEOPLE);
    people - active + random.below(active + AHEAD)
}

/// SplitMix64 (Steele, Lea, Flood 2014), begun anew for each event.
struct Random(u64);

impl Random {
    fn of(seed: u64, number: u64) -> Self {
        let mut of_seed = Self(seed);
        let mut random = Self(of_seed.next() ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to `bound`, which is left out.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    fn one_of(&mut self, all: &[&'static str]) -> &'static str {
        all[self.below(all.len() as u64) as usize]
    }

    /// From 1 to a million dollars, in cents, each power of ten as likely as any other.
    fn price(&mut self) -> i64 {
        let share = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        (10f64.powf(share * 6.0) * 100.0).round() as i64
    }

    /// Letters and spaces, at least three.
    fn text(&mut self, longest: u64) -> String {
        let length = 3 + self.below(longest - 2);
        let mut text = String::new();
        for _ in 0..length {
            text.push(match self.below(13) {
                0 => ' ',
                _ => (b'a' + self.below(26) as u8) as char,
            });
        }
        text.trim().to_owned()
    }

    /// What a record of `size` bytes lacks to `wanted`, give or take a fifth.
    fn extra(&mut self, size: usize, wanted: usize) -> String {
        let Some(lacking) = wanted.checked_sub(size) else {
            return String::new();
        };
        let give = lacking as u64 / 5;
        let length = lacking as u64 - give + self.below(2 * give + 1);
        (0..length)
            .map(|_| (b'a' + self.below(26) as u8) as char)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn all(generator: Generator, count: u64) -> (Vec<Person>, Vec<Auction>, Vec<Bid>) {
        let (mut people, mut auctions, mut bids) = (vec![], vec![], vec![]);
        for event in generator.events(count) {
            match event {
                Event::Person(person) => people.push(person),
                Event::Auction(auction) => auctions.push(auction),
                Event::Bid(bid) => bids.push(bid),
            }
        }
        (people, auctions, bids)
    }

    const SEEDED: Generator = Generator {
        seed: 7,
        first_ms: 0,
        events_per_second: 100,
        group: 1,
    };

    #[test]
    fn shares_ids_and_times_are_those_of_the_benchmark() {
        let (people, auctions, bids) = all(SEEDED, 50_000);
        assert_eq!(
            (people.len(), auctions.len(), bids.len()),
            (1_000, 3_000, 46_000)
        );
        let ids = |from: i64, count: i64| (from..from + count).collect::<Vec<_>>();
        assert_eq!(
            people.iter().map(|p| p.id).collect::<Vec<_>>(),
            ids(1_000, 1_000)
        );
        assert_eq!(
            auctions.iter().map(|a| a.id).collect::<Vec<_>>(),
            ids(1_000, 3_000)
        );
        assert_eq!(bids[0].date_time, 40);
        assert_eq!(bids.last().unwrap().date_time, 499_990);
        let categories: BTreeSet<_> = auctions.iter().map(|auction| auction.category).collect();
        assert_eq!(categories, (10..15).collect());
        assert!(
            auctions
                .iter()
                .all(|a| a.reserve > a.initial_bid && a.expires > a.date_time)
        );
        assert!(
            bids.iter()
                .all(|bid| (100..=100_000_000).contains(&bid.price))
        );
        let share = |of: usize, all: usize| of as f64 / all as f64;
        // A hot one is one of the others as well, once in a while.
        let hot_auctions = bids
            .iter()
            .filter(|bid| (bid.auction - 1_000) % 100 == 0)
            .count();
        let hot_bidders = bids
            .iter()
            .filter(|bid| (bid.bidder - 1_000) % 100 == 1)
            .count();
        let hot_sellers = auctions
            .iter()
            .filter(|a| (a.seller - 1_000) % 100 == 0)
            .count();
        assert!((share(hot_auctions, 46_000) - 0.505).abs() < 0.01);
        assert!((share(hot_bidders, 46_000) - 0.7525).abs() < 0.01);
        assert!((share(hot_sellers, 3_000) - 0.7525).abs() < 0.03);
        let mean = |sizes: &mut dyn Iterator<Item = usize>, count| share(sizes.sum(), count);
        let bytes = mean(&mut bids.iter().map(|bid| 32 + bid.extra.len()), 46_000);
        assert!((bytes - 100.0).abs() < 2.0, "{bytes}");
    }

    #[test]
    fn a_seed_gives_the_same_events_in_groups_out_of_order_too() {
        let mixed = Generator {
            group: 16,
            ..SEEDED
        };
        let (in_order, out_of_order): (Vec<_>, Vec<_>) = (
            SEEDED.events(1_600).collect(),
            mixed.events(1_600).collect(),
        );
        assert_eq!(mixed.events(1_600).collect::<Vec<_>>(), out_of_order);
        assert_ne!(in_order, out_of_order);
        let time = |event: &Event| match event {
            Event::Person(person) => person.date_time,
            Event::Auction(auction) => auction.date_time,
            Event::Bid(bid) => bid.date_time,
        };
        let mut sorted = out_of_order.clone();
        sorted.sort_by_key(time);
        assert_eq!(sorted, in_order);
        let mut latest = 0;
        let behind = out_of_order.iter().map(|event| {
            latest = latest.max(time(event));
            latest - time(event)
        });
        let behind = behind.max().unwrap();
        assert!(behind > 0 && behind <= mixed.disorder_ms(), "{behind}");
        let other = Generator { seed: 8, ..SEEDED };
        assert_ne!(in_order, other.events(1_600).collect::<Vec<_>>());
    }
}
