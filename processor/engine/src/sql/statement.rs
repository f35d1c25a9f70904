//! Cuts a text into statements and reads each.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use datafusion_sql::sqlparser::ast::Ident;
use datafusion_sql::sqlparser::dialect::GenericDialect;
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use super::options::{Options, format};
use super::{Emit, JobError, Location, Script, Sink, Source, bounds, columns, select};

const SOURCE_OPTIONS: [&str; 8] = [
    "topic",
    "event_time",
    "format",
    "out_of_orderness",
    "idle_timeout",
    "idle_advance",
    "max_ahead",
    "max_drift",
];
/// How far event time may be ahead of the clock unless the job says otherwise: more than clocks differ, and less than a
/// wrong unit or century makes.
const MAX_AHEAD: Duration = Duration::from_secs(60 * 60);
const SINK_OPTIONS: [&str; 6] = ["topic", "key", "emit", "grace", "state_ttl", "history_ttl"];
/// How long `anomaly_score` remembers a silent group unless the job says otherwise.
const HISTORY_TTL: Duration = Duration::from_secs(30 * 24 * 60 * 60);

pub(super) fn script(text: &str) -> Result<Script, Vec<JobError>> {
    bounds::length(text).map_err(|error| vec![error])?;
    let dialect = GenericDialect {};
    let tokens = Tokenizer::new(&dialect, text)
        .tokenize_with_location()
        .map_err(|error| {
            vec![JobError::new(
                error.location.into(),
                error.message.clone(),
                "close every quotation mark and comment",
            )]
        })?;
    bounds::depth(&tokens).map_err(|error| vec![error])?;
    let mut reader = Reader {
        script: Script {
            sources: BTreeMap::new(),
            tables: BTreeMap::new(),
            sinks: BTreeMap::new(),
            inserts: Vec::new(),
            options: BTreeMap::new(),
        },
        errors: Vec::new(),
        broken: BTreeSet::new(),
    };
    let mut any = false;
    for tokens in tokens.split(|token| token.token == Token::SemiColon) {
        let Some(first) = tokens
            .iter()
            .find(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF))
        else {
            continue;
        };
        any = true;
        reader.statement(tokens, first.span.start.into());
    }
    if !any {
        reader.errors.push(JobError::new(
            Location { line: 1, column: 1 },
            "the job has no statement",
            "write CREATE SOURCE …; CREATE SINK …; INSERT INTO … SELECT …;",
        ));
    }
    reader.finish()
}

pub(super) struct Reader {
    pub(super) script: Script,
    pub(super) errors: Vec<JobError>,
    /// Sources, reference tables and sinks whose statement is wrong: they are declared all the same.
    pub(super) broken: BTreeSet<String>,
}

impl Reader {
    fn statement(&mut self, tokens: &[TokenWithSpan], at: Location) {
        let dialect = GenericDialect {};
        let mut parser = Parser::new(&dialect).with_tokens_with_locations(tokens.to_vec());
        let read = if parser.parse_keyword(Keyword::CREATE) {
            self.create(&mut parser, at)
        } else if parser.parse_keywords(&[Keyword::INSERT, Keyword::INTO]) {
            self.insert(&mut parser, tokens, at)
        } else {
            let word = parser.peek_token();
            self.errors.push(JobError::new(
                at,
                format!("{word} does not begin a statement of a job"),
                "a job has CREATE SOURCE, CREATE REFERENCE TABLE, CREATE SINK and INSERT INTO … SELECT statements, with a semicolon behind each",
            ));
            return;
        };
        if let Err(error) = read {
            self.errors.push(syntax_error(&error, tokens, at));
        }
    }

    fn create(&mut self, parser: &mut Parser<'_>, at: Location) -> Result<(), ParserError> {
        let word = parser.next_token();
        match word.to_string().to_uppercase().as_str() {
            "SOURCE" => self.source(parser, at),
            "SINK" => self.sink(parser, at),
            "REFERENCE" => {
                parser.expect_keyword(Keyword::TABLE)?;
                self.reference_table(parser, at)
            }
            other => {
                self.errors.push(JobError::new(
                    word.span.start.into(),
                    format!("CREATE {other} is not supported"),
                    "write CREATE SOURCE name WITH (…), CREATE REFERENCE TABLE name WITH (…) or CREATE SINK name WITH (…)",
                ));
                Ok(())
            }
        }
    }

    /// Reads the name that follows CREATE SOURCE, CREATE REFERENCE TABLE or CREATE SINK.
    pub(super) fn name(&mut self, parser: &mut Parser<'_>) -> Result<String, ParserError> {
        let ident = parser.parse_identifier()?;
        let name = normal(&ident);
        let script = &self.script;
        if script.sources.contains_key(&name)
            || script.tables.contains_key(&name)
            || script.sinks.contains_key(&name)
        {
            let at = Location::from(ident.span.start);
            self.errors.push(JobError::new(
                at,
                format!("the name {name} is used twice"),
                "give each its own name",
            ));
        }
        Ok(name)
    }

    pub(super) fn end(parser: &mut Parser<'_>) -> Result<(), ParserError> {
        match parser.peek_token() {
            TokenWithSpan {
                token: Token::EOF, ..
            } => Ok(()),
            found => parser.expected("a semicolon", found),
        }
    }

    pub(super) fn options(&mut self, name: &str, options: &Options) {
        for (option, at) in options.locations() {
            self.script
                .options
                .insert((name.to_owned(), option.to_owned()), at);
        }
    }

    fn source(&mut self, parser: &mut Parser<'_>, at: Location) -> Result<(), ParserError> {
        let name = self.name(parser)?;
        self.broken.insert(name.clone());
        let before = self.errors.len();
        let columns = columns::parse(parser, "SOURCE", &mut self.errors)?;
        let mut options = Options::parse(parser, at, &mut self.errors)?;
        self.options(&name, &options);
        Self::end(parser)?;
        let errors = &mut self.errors;
        let topic = options.required("topic", "trips", errors).0;
        let event_time = options.required("event_time", "pickup_at", errors).0;
        let format = format(
            &mut options,
            "SOURCE",
            columns.as_ref().map(|(_, at)| *at),
            at,
            errors,
        );
        let source = Source {
            topic,
            event_time,
            format,
            columns: columns.map(|(columns, _)| columns),
            out_of_orderness: options
                .duration("out_of_orderness", errors)
                .unwrap_or(Duration::ZERO),
            idle_timeout: options.duration("idle_timeout", errors),
            idle_advance: options.flag("idle_advance", true, errors),
            max_ahead: options.bound("max_ahead", Some(MAX_AHEAD), errors),
            max_drift: options.bound("max_drift", None, errors),
            at,
            name: name.clone(),
        };
        options.finish("CREATE SOURCE", &SOURCE_OPTIONS, errors);
        if self.errors.len() == before {
            self.broken.remove(&name);
        }
        self.script.sources.entry(name).or_insert(source);
        Ok(())
    }

    fn sink(&mut self, parser: &mut Parser<'_>, at: Location) -> Result<(), ParserError> {
        let name = self.name(parser)?;
        self.broken.insert(name.clone());
        let before = self.errors.len();
        let mut options = Options::parse(parser, at, &mut self.errors)?;
        self.options(&name, &options);
        Self::end(parser)?;
        let errors = &mut self.errors;
        let topic = options.required("topic", "trip_statistics", errors).0;
        let (key, key_at) = options.required("key", "window_start, vendor_id", errors);
        let emit = match options.optional("emit", "final", errors) {
            None => Emit::Final,
            Some((emit, at)) => match emit.as_str() {
                "final" => Emit::Final,
                "changes" => Emit::Changes,
                _ => {
                    errors.push(JobError::new(
                        at,
                        format!("emit = '{emit}' is not supported"),
                        "write emit = 'final': one row per window and key, when the window closes; or emit = 'changes': a row also whenever it has changed",
                    ));
                    Emit::Final
                }
            },
        };
        let key: Vec<String> = key.split(',').map(|part| part.trim().to_owned()).collect();
        if key.len() > 1 && key.iter().any(String::is_empty) {
            errors.push(JobError::new(
                key_at,
                "the key has an empty part",
                "write key = 'window_start, vendor_id'",
            ));
        }
        let sink = Sink {
            topic,
            key,
            emit,
            grace: options.duration("grace", errors).unwrap_or(Duration::ZERO),
            state_ttl: options.duration("state_ttl", errors),
            history_ttl: options
                .duration("history_ttl", errors)
                .unwrap_or(HISTORY_TTL),
            at,
            name: name.clone(),
        };
        options.finish("CREATE SINK", &SINK_OPTIONS, errors);
        if self.errors.len() == before {
            self.broken.remove(&name);
        }
        self.script.sinks.entry(name).or_insert(sink);
        Ok(())
    }

    fn insert(
        &mut self,
        parser: &mut Parser<'_>,
        tokens: &[TokenWithSpan],
        at: Location,
    ) -> Result<(), ParserError> {
        let ident = parser.parse_identifier()?;
        let sink_at = Location::from(ident.span.start);
        let sink = normal(&ident);
        if parser.peek_token().token == Token::LParen {
            self.errors.push(JobError::new(
                parser.peek_token().span.start.into(),
                "INSERT INTO with a list of columns is not supported",
                "name the columns in the SELECT list: SELECT count(*) AS trip_count",
            ));
            return Ok(());
        }
        let query = parser.parse_query()?;
        Self::end(parser)?;
        if let Some(insert) = select::check(*query, tokens, &sink, at, &mut self.errors) {
            self.script.inserts.push(insert);
        }
        if self
            .script
            .inserts
            .iter()
            .filter(|insert| insert.sink == sink)
            .count()
            > 1
        {
            let what = format!("a second INSERT INTO {sink}");
            self.errors.push(JobError::new(
                sink_at,
                what,
                "give each INSERT a sink of its own",
            ));
        }
        self.script
            .options
            .insert((sink, "insert".to_owned()), sink_at);
        Ok(())
    }
}

/// A name as the planner sees it: in lower case unless it is quoted.
pub(super) fn normal(ident: &Ident) -> String {
    if ident.quote_style.is_some() {
        ident.value.clone()
    } else {
        ident.value.to_lowercase()
    }
}

/// The parser writes the location behind its message; at the end of a statement it has none.
fn syntax_error(error: &ParserError, tokens: &[TokenWithSpan], at: Location) -> JobError {
    let message = match error {
        ParserError::ParserError(message) | ParserError::TokenizerError(message) => {
            message.as_str()
        }
        ParserError::RecursionLimitExceeded => "the statement is nested too deeply",
    };
    let (what, place) = match message.rfind(" at Line: ") {
        Some(found) => (&message[..found], &message[found + " at Line: ".len()..]),
        None => (message, ""),
    };
    let mut numbers = place
        .split(", Column: ")
        .map(|number| number.trim().parse::<u64>());
    let end = tokens
        .iter()
        .rev()
        .find(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF))
        .map_or(at, |token| token.span.end.into());
    let at = match (numbers.next(), numbers.next()) {
        (Some(Ok(line)), Some(Ok(column))) if line > 0 => Location { line, column },
        _ => end,
    };
    let what = what.replace("found: EOF", "found the end of the statement");
    JobError {
        at,
        what,
        help: None,
    }
}
