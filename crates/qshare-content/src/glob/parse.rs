//! The parts of a glob, and what is known of every match without running it.

use std::iter::Peekable;
use std::str::Chars;

use super::bits::GLOB_MAX_BYTES;

/// Why a text is not a glob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// More than [`GLOB_MAX_BYTES`].
    #[error("it is longer than {GLOB_MAX_BYTES} bytes")]
    TooLong,
    /// A `[` without its `]`.
    #[error("a character class is not closed: `]` is missing")]
    UnclosedClass,
    /// A range whose end is before its start.
    #[error("the range {0}-{1} is empty")]
    InvalidRange(char, char),
    /// A `}` without its `{`.
    #[error("a group is not opened: `{{` is missing")]
    UnopenedGroup,
    /// A `{` without its `}`.
    #[error("a group is not closed: `}}` is missing")]
    UnclosedGroup,
}

/// A part of a glob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Literal(char),
    /// `?`
    Any,
    /// `*`
    Star,
    /// `**/`: nothing, or components with their slashes.
    AnyComponents,
    /// `/**` at the end: a slash and whatever follows.
    AnythingBelow,
    /// `/**/`: a slash, and perhaps components with their slashes.
    ComponentsBetween,
    Class(Class),
    Group(Vec<Vec<Token>>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Class {
    negated: bool,
    ranges: Vec<(char, char)>,
}

impl Class {
    pub(super) fn contains(&self, c: char) -> bool {
        let listed = self.ranges.iter().any(|&(from, to)| from <= c && c <= to);
        listed != self.negated
    }
}

/// Parses a glob.
pub(super) fn parse(glob: &str) -> Result<Vec<Token>, GlobError> {
    let mut parser = Parser {
        chars: glob.chars().peekable(),
        previous: None,
        current: None,
    };
    parser.sequence(0)
}

/// Reads a glob character by character.
struct Parser<'a> {
    chars: Peekable<Chars<'a>>,
    previous: Option<char>,
    current: Option<char>,
}

impl Parser<'_> {
    fn next(&mut self) -> Option<char> {
        self.previous = self.current;
        self.current = self.chars.next();
        self.current
    }

    fn peek(&mut self) -> Option<char> {
        self.chars.peek().copied()
    }

    /// Reads tokens up to the end of the glob or, inside of `depth` groups, up to the `,` or `}`
    /// that ends this alternative, which is left in `current`.
    fn sequence(&mut self, depth: usize) -> Result<Vec<Token>, GlobError> {
        let mut tokens = Vec::new();
        while let Some(c) = self.next() {
            match c {
                '?' => tokens.push(Token::Any),
                '*' => self.star(&mut tokens, depth),
                '[' => tokens.push(Token::Class(self.class()?)),
                '{' => tokens.push(self.group(depth + 1)?),
                '}' if depth == 0 => return Err(GlobError::UnopenedGroup),
                ',' | '}' if depth > 0 => return Ok(tokens),
                c => tokens.push(Token::Literal(c)),
            }
        }
        match depth {
            0 => Ok(tokens),
            _ => Err(GlobError::UnclosedGroup),
        }
    }

    /// Reads the alternatives after `{`.
    fn group(&mut self, depth: usize) -> Result<Token, GlobError> {
        let mut alternatives = Vec::new();
        loop {
            alternatives.push(self.sequence(depth)?);
            if self.current == Some('}') {
                return Ok(Token::Group(alternatives));
            }
        }
    }

    /// Reads what begins with a `*`. Two of them mean more only where they are a whole component.
    fn star(&mut self, tokens: &mut Vec<Token>, depth: usize) {
        let before = self.previous;
        if self.peek() != Some('*') {
            tokens.push(Token::Star);
            return;
        }
        self.next();
        let after = self.peek();
        if tokens.is_empty() {
            match after {
                None | Some('/') => {
                    self.next();
                    tokens.push(Token::AnyComponents);
                }
                Some(_) => tokens.extend([Token::Star, Token::Star]),
            }
            return;
        }
        let whole = match after {
            None => Some(Token::AnythingBelow),
            Some(',' | '}') if depth > 0 => Some(Token::AnythingBelow),
            Some('/') => Some(Token::ComponentsBetween),
            Some(_) => None,
        };
        match whole {
            Some(token) if before == Some('/') => {
                if after == Some('/') {
                    self.next();
                }
                // The slash before the stars, or what the stars before it became.
                match tokens.pop() {
                    Some(before @ (Token::AnyComponents | Token::AnythingBelow)) => {
                        tokens.push(before);
                    }
                    _ => tokens.push(token),
                }
            }
            _ => tokens.extend([Token::Star, Token::Star]),
        }
    }

    /// Reads the rest of a class after `[`.
    fn class(&mut self) -> Result<Class, GlobError> {
        let negated = matches!(self.peek(), Some('!' | '^'));
        if negated {
            self.next();
        }
        let mut ranges: Vec<(char, char)> = Vec::new();
        let mut open_range = false;
        loop {
            let c = self.next().ok_or(GlobError::UnclosedClass)?;
            match (c, ranges.last_mut()) {
                (']', Some(_)) => break,
                ('-', Some(_)) if !open_range => open_range = true,
                (c, Some(range)) if open_range => {
                    range.1 = c;
                    if range.1 < range.0 {
                        return Err(GlobError::InvalidRange(range.0, range.1));
                    }
                    open_range = false;
                }
                (c, _) => ranges.push((c, c)),
            }
        }
        if open_range {
            ranges.push(('-', '-'));
        }
        Ok(Class { negated, ranges })
    }
}

/// What every name begins with that matches these tokens.
pub(super) fn literal_prefix(tokens: &[Token]) -> String {
    let mut prefix = String::new();
    for token in tokens {
        match token {
            Token::Literal(c) => prefix.push(*c),
            Token::AnythingBelow | Token::ComponentsBetween => {
                prefix.push('/');
                break;
            }
            _ => break,
        }
    }
    prefix
}

/// What every name ends with that matches these tokens.
pub(super) fn literal_suffix(tokens: &[Token]) -> String {
    let mut reversed = Vec::new();
    for token in tokens.iter().rev() {
        match token {
            Token::Literal(c) => reversed.push(*c),
            Token::ComponentsBetween => {
                reversed.push('/');
                break;
            }
            _ => break,
        }
    }
    reversed.iter().rev().collect()
}
