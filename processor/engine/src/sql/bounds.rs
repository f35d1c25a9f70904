//! How long a job's text may be, and how deep its expressions. What comes behind walks expressions by recursion, here and in
//! the planner: one that is as deep as its text is long would overflow the stack.

use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::{JobError, Location};

/// The most bytes of a job's text.
pub(super) const MAX_BYTES: usize = 128 * 1024;
/// The most statements of a job.
const MAX_STATEMENTS: usize = 1_000;
/// The most operators in one expression, those around it included.
const MAX_OPERATORS: usize = 400;
/// The most parentheses around one another. Some are read twice before it is known what they are, and those in them too.
const MAX_NESTED: usize = 24;
/// The most joins and set operations of a statement.
const MAX_TABLES: usize = 32;

/// Whether a text is longer than a job may be.
pub(super) fn length(text: &str) -> Result<(), JobError> {
    if text.len() <= MAX_BYTES {
        return Ok(());
    }
    Err(JobError::new(
        Location { line: 1, column: 1 },
        format!("the job has {} bytes, more than {MAX_BYTES}", text.len()),
        "write several jobs, each with an application id of its own",
    ))
}

/// Whether a job has more statements than one may have, or an expression that is too deep: in all that lies between two
/// commas, with what is around it, each operator or keyword may be one level more.
pub(super) fn depth(tokens: &[TokenWithSpan]) -> Result<(), JobError> {
    let (mut statements, mut tables) = (0, 0);
    // How many operators stand before the place that is reached, for each parenthesis that is open there.
    let mut levels = vec![0_usize];
    let mut sum = 0;
    for token in tokens {
        let mut counts = 0;
        match &token.token {
            Token::SemiColon => {
                statements += 1;
                (tables, sum) = (0, 0);
                levels = vec![0];
            }
            Token::Comma => {
                let level = levels.last_mut().map(std::mem::take);
                sum -= level.unwrap_or_default();
            }
            Token::LParen | Token::LBracket | Token::LBrace => {
                add(&mut levels, &mut sum, 1);
                levels.push(0);
            }
            Token::RParen | Token::RBracket | Token::RBrace if levels.len() > 1 => {
                sum -= levels.pop().unwrap_or_default();
            }
            Token::Word(word) => match word.keyword {
                Keyword::NoKeyword => {}
                // The parser does not guard the recursion of these.
                Keyword::INTERVAL => counts = 10,
                Keyword::JOIN | Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT => {
                    tables += 1;
                    counts = 1;
                }
                _ => counts = 1,
            },
            Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::DoubleQuotedString(_)
            | Token::Period
            | Token::Whitespace(_)
            | Token::EOF => {}
            _ => counts = 1,
        }
        add(&mut levels, &mut sum, counts);
        let at = token.span.start.into();
        if sum > MAX_OPERATORS || levels.len() > MAX_NESTED || tables > MAX_TABLES {
            return Err(JobError::new(
                at,
                "the expression is nested too deeply",
                "shorten it: IN (…) for many ORs; a lookup in place of a long CASE; a query over the results of another",
            ));
        }
        if statements > MAX_STATEMENTS {
            return Err(JobError::new(
                at,
                format!("the job has more than {MAX_STATEMENTS} statements"),
                "write several jobs, each with an application id of its own",
            ));
        }
    }
    Ok(())
}

fn add(levels: &mut [usize], sum: &mut usize, count: usize) {
    if let Some(level) = levels.last_mut() {
        *level += count;
        *sum += count;
    }
}
