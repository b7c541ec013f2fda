//! Glushkov's construction: one position for each character of a glob that consumes input.

use super::bits::{Bits, WORDS_MAX};
use super::parse::{Class, Token};

/// What a position consumes.
#[derive(Debug, Clone)]
pub(super) enum Symbol {
    Literal(char),
    NotSlash,
    Anything,
    Class(Class),
}

impl Symbol {
    pub(super) fn consumes(&self, c: char) -> bool {
        match self {
            Symbol::Literal(literal) => *literal == c,
            Symbol::NotSlash => c != '/',
            Symbol::Anything => true,
            Symbol::Class(class) => class.contains(c),
        }
    }
}

pub(super) type WideBits = Bits<WORDS_MAX>;

/// The positions of a glob, in its order, and which may follow each.
#[derive(Default)]
pub(super) struct Positions {
    pub(super) symbols: Vec<Symbol>,
    pub(super) follow: Vec<WideBits>,
}

/// A part of a glob as a set of words: where they begin, where they end, and whether the empty
/// word is one.
pub(super) struct Part {
    pub(super) first: WideBits,
    pub(super) last: WideBits,
    pub(super) nullable: bool,
}

impl Part {
    const EMPTY: Part = Part {
        first: Bits::EMPTY,
        last: Bits::EMPTY,
        nullable: true,
    };

    fn optional(self) -> Part {
        Part {
            nullable: true,
            ..self
        }
    }
}

impl Positions {
    fn once(&mut self, symbol: Symbol) -> Part {
        let position = self.symbols.len();
        self.symbols.push(symbol);
        self.follow.push(Bits::EMPTY);
        Part {
            first: Bits::one(position),
            last: Bits::one(position),
            nullable: false,
        }
    }

    pub(super) fn repeated(&mut self, symbol: Symbol) -> Part {
        let part = self.once(symbol);
        self.follow[self.symbols.len() - 1] |= part.first;
        part.optional()
    }

    fn then(&mut self, before: &Part, after: &Part) -> Part {
        for position in before.last.iter() {
            self.follow[position] |= after.first;
        }
        let reaches = |nullable: bool, bits: WideBits| if nullable { bits } else { Bits::EMPTY };
        Part {
            first: before.first | reaches(before.nullable, after.first),
            last: after.last | reaches(after.nullable, before.last),
            nullable: before.nullable && after.nullable,
        }
    }

    pub(super) fn sequence(&mut self, tokens: &[Token]) -> Part {
        let mut whole = Part::EMPTY;
        let mut rest = tokens;
        while let Some((token, after)) = rest.split_first() {
            let run = rest
                .iter()
                .take_while(|token| matches!(token, Token::Any | Token::Star))
                .count();
            if run == 0 {
                let part = self.token(token);
                whole = self.then(&whole, &part);
                rest = after;
                continue;
            }
            // `*?*` means `?*`: one repetition for a whole run of both.
            let (wildcards, after) = rest.split_at(run);
            let once = wildcards.iter().filter(|token| **token == Token::Any);
            let once = once.count();
            for _ in 0..once {
                let part = self.once(Symbol::NotSlash);
                whole = self.then(&whole, &part);
            }
            if once < run {
                let part = self.repeated(Symbol::NotSlash);
                whole = self.then(&whole, &part);
            }
            rest = after;
        }
        whole
    }

    fn token(&mut self, token: &Token) -> Part {
        match token {
            Token::Literal(c) => self.once(Symbol::Literal(*c)),
            Token::Any => self.once(Symbol::NotSlash),
            Token::Star => self.repeated(Symbol::NotSlash),
            Token::Class(class) => self.once(Symbol::Class(class.clone())),
            Token::AnyComponents => self.components(),
            Token::AnythingBelow => {
                let slash = self.once(Symbol::Literal('/'));
                let below = self.repeated(Symbol::Anything);
                self.then(&slash, &below)
            }
            Token::ComponentsBetween => {
                let slash = self.once(Symbol::Literal('/'));
                let components = self.components();
                self.then(&slash, &components)
            }
            Token::Group(alternatives) => {
                let mut parts = alternatives
                    .iter()
                    .filter(|tokens| !is_void(tokens))
                    .map(|tokens| self.sequence(tokens));
                let Some(first) = parts.next() else {
                    return Part::EMPTY;
                };
                parts.fold(first, |one, other| Part {
                    first: one.first | other.first,
                    last: one.last | other.last,
                    nullable: one.nullable || other.nullable,
                })
            }
        }
    }

    /// Returns the part that matches the empty text and every text that ends with a slash: the
    /// directories that `**/` stands for.
    fn components(&mut self) -> Part {
        let anything = self.repeated(Symbol::Anything);
        let slash = self.once(Symbol::Literal('/'));
        self.then(&anything, &slash).optional()
    }
}

/// Whether an alternative is empty, which is not the same as matching the empty name.
fn is_void(tokens: &[Token]) -> bool {
    tokens.iter().all(|token| match token {
        Token::Group(alternatives) => alternatives.iter().all(|tokens| is_void(tokens)),
        _ => false,
    })
}
