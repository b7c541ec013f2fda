//! Rust source as a sequence of tokens, without comments, literals and what is compiled for tests
//! only.

/// What imports are read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// An identifier or keyword.
    Word(String),
    /// `::`
    Path,
    /// Any other punctuation.
    Sign(char),
}

impl Token {
    pub(super) fn is(&self, word: &str) -> bool {
        matches!(self, Token::Word(own) if own == word)
    }
}

/// The tokens of `source`, without items that have `#[cfg(test)]`.
pub(super) fn of(source: &str) -> Vec<Token> {
    without_tests(&all(source))
}

fn all(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    let next = |at: usize| chars.get(at).copied().unwrap_or('\0');
    while at < chars.len() {
        match chars[at] {
            '/' if next(at + 1) == '/' => {
                while at < chars.len() && chars[at] != '\n' {
                    at += 1;
                }
            }
            '/' if next(at + 1) == '*' => at = after_block_comment(&chars, at),
            '"' => at = after_string(&chars, at),
            'r' | 'b' | 'c' if starts_raw_string(&chars, at) => at = after_raw_string(&chars, at),
            '\'' => at = after_quote(&chars, at),
            ':' if next(at + 1) == ':' => {
                tokens.push(Token::Path);
                at += 2;
            }
            c if c == '_' || c.is_alphanumeric() => {
                let start = at;
                while at < chars.len() && (chars[at] == '_' || chars[at].is_alphanumeric()) {
                    at += 1;
                }
                tokens.push(Token::Word(chars[start..at].iter().collect()));
            }
            c if c.is_whitespace() => at += 1,
            c => {
                tokens.push(Token::Sign(c));
                at += 1;
            }
        }
    }
    tokens
}

fn after_block_comment(chars: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut at = start;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn after_string(chars: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// Whether `r"`, `r#"`, `br"` and the like begin here, and are no end of a longer word.
fn starts_raw_string(chars: &[char], start: usize) -> bool {
    let mut at = start;
    while at < start + 2 && matches!(chars.get(at), Some('r' | 'b' | 'c')) {
        at += 1;
    }
    if chars[at - 1] != 'r' {
        return false;
    }
    while chars.get(at) == Some(&'#') {
        at += 1;
    }
    chars.get(at) == Some(&'"')
}

fn after_raw_string(chars: &[char], start: usize) -> usize {
    let mut at = start;
    let mut hashes = 0;
    while chars[at] != '"' {
        hashes += usize::from(chars[at] == '#');
        at += 1;
    }
    at += 1;
    while at < chars.len() {
        let closing = chars[at + 1..].iter().take_while(|c| **c == '#').count();
        if chars[at] == '"' && closing >= hashes {
            return at + 1 + hashes;
        }
        at += 1;
    }
    at
}

/// After a character literal, or after the quote of a lifetime.
fn after_quote(chars: &[char], start: usize) -> usize {
    match (chars.get(start + 1), chars.get(start + 2)) {
        (Some('\\'), _) => {
            let mut at = start + 3;
            while at < chars.len() && chars[at] != '\'' {
                at += 1;
            }
            at + 1
        }
        (Some(_), Some('\'')) => start + 3,
        _ => start + 1,
    }
}

fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if is_cfg_test(&tokens[at..]) {
            at = after_item(tokens, at);
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

/// `#[cfg(test)]`, or `#[cfg(all(test, …))]`.
fn is_cfg_test(tokens: &[Token]) -> bool {
    let begins = matches!(
        tokens,
        [Token::Sign('#'), Token::Sign('['), cfg, Token::Sign('('), ..] if cfg.is("cfg")
    );
    begins
        && match &tokens[4..] {
            [test, Token::Sign(')'), ..] => test.is("test"),
            [all, Token::Sign('('), test, ..] => all.is("all") && test.is("test"),
            _ => false,
        }
}

/// Where the item ends whose first attribute begins at `start`.
fn after_item(tokens: &[Token], start: usize) -> usize {
    let mut at = start;
    let mut depth = 0;
    let mut imports = false;
    while at < tokens.len() {
        let token = &tokens[at];
        at += 1;
        match token {
            Token::Word(_) if depth == 0 => imports |= token.is("use"),
            Token::Sign('{' | '(' | '[') => depth += 1,
            Token::Sign(')' | ']') => depth -= 1,
            Token::Sign('}') => {
                depth -= 1;
                if depth == 0 && !imports {
                    break;
                }
            }
            Token::Sign(';' | ',') if depth == 0 => break,
            _ => {}
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<String> {
        let word = |token| match token {
            Token::Word(word) => Some(word),
            _ => None,
        };
        of(source).into_iter().filter_map(word).collect()
    }

    #[test]
    fn comments_and_literals_are_no_tokens() {
        let source = r###"
            // one
            /* two /* three */ */
            a("four \" four", 'x', '\'', '{', r#"five " "#, b"six", br"seven");
            fn b<'c>(d: &'c str) {}
        "###;
        assert_eq!(words(source), ["a", "b", "fn", "b", "c", "d", "c", "str"]);
    }

    #[test]
    fn what_is_compiled_for_tests_only_is_left_out() {
        let source = "
            use a;
            #[cfg(test)] use b::{c, d};
            #[cfg(all(test, unix))] #[allow(x)] mod e { fn f() { g(); } }
            #[cfg(test)] mod h;
            #[cfg(test)] fn i(j: K) -> L { m }
            struct N { #[cfg(test)] o: P, q: R }
            #[cfg(unix)] use s;
        ";
        let kept = [
            "use", "a", "struct", "N", "q", "R", "cfg", "unix", "use", "s",
        ];
        assert_eq!(words(source), kept);
    }
}
