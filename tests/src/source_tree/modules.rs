//! The modules of a crate, and which paths each of them names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::imports::Imports;
use super::tokens::{self, Token};

/// Longest chain of re-exports that is followed.
const REEXPORTS_MAX: usize = 16;

type Words = Vec<String>;

#[derive(Default)]
struct Module {
    parent: Option<usize>,
    file: PathBuf,
    children: BTreeMap<String, usize>,
    /// Names of items that the module itself has.
    items: BTreeSet<String>,
    /// What `use` brings in, by the name that it has here.
    used: BTreeMap<String, Words>,
    /// Modules of which `use` brings in everything.
    globs: Vec<Words>,
    /// Paths in expressions and types.
    paths: Vec<Words>,
}

/// All modules of a crate.
pub(super) struct Crate {
    modules: Vec<Module>,
    directory: PathBuf,
}

impl Crate {
    /// Reads the files of a crate, beginning with its `lib.rs` or `main.rs`.
    pub(super) fn read(start: &Path) -> Crate {
        let directory = start.parent().unwrap_or(Path::new("")).to_path_buf();
        let mut read = Crate {
            modules: Vec::new(),
            directory: directory.clone(),
        };
        read.add_file(None, start, &directory);
        read
    }

    /// Which file names something of which other.
    pub(super) fn imports(&self) -> Imports {
        let mut imports = Imports::new();
        for (at, module) in self.modules.iter().enumerate() {
            let named = module
                .used
                .values()
                .chain(&module.globs)
                .chain(&module.paths);
            for path in named {
                let Some(target) = self.resolve(at, path, 0) else {
                    continue;
                };
                let target = &self.modules[target].file;
                if *target != module.file {
                    let from = self.shown(&module.file);
                    imports.entry(from).or_default().insert(self.shown(target));
                }
            }
        }
        imports
    }

    fn shown(&self, file: &Path) -> String {
        let file = file.strip_prefix(&self.directory).unwrap_or(file);
        file.display().to_string()
    }

    fn add_file(&mut self, parent: Option<usize>, file: &Path, directory: &Path) -> usize {
        let text =
            fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let tokens = tokens::of(&text);
        self.add_module(parent, file, directory, &tokens)
    }

    fn add_module(
        &mut self,
        parent: Option<usize>,
        file: &Path,
        directory: &Path,
        tokens: &[Token],
    ) -> usize {
        let own = self.modules.len();
        self.modules.push(Module {
            parent,
            file: file.to_path_buf(),
            ..Module::default()
        });
        let mut depth = 0;
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at..] {
                [token, Token::Word(name), Token::Sign(';'), ..] if token.is("mod") => {
                    let beside = directory.join(format!("{name}.rs"));
                    let inside = directory.join(name).join("mod.rs");
                    let found = [beside, inside].into_iter().find(|file| file.exists());
                    let found = found
                        .unwrap_or_else(|| panic!("{}: no file of module {name}", file.display()));
                    let child = self.add_file(Some(own), &found, &directory.join(name));
                    self.modules[own].children.insert(name.clone(), child);
                    at += 3;
                }
                [token, Token::Word(name), Token::Sign('{'), ..] if token.is("mod") => {
                    let end = closing(tokens, at + 2);
                    let below = directory.join(name);
                    let child = self.add_module(Some(own), file, &below, &tokens[at + 3..end]);
                    self.modules[own].children.insert(name.clone(), child);
                    at = end + 1;
                }
                // The path of a visibility, `pub(in crate::a)`, imports nothing.
                [token, Token::Sign('('), within, ..] if token.is("pub") && within.is("in") => {
                    let rest = &tokens[at..];
                    let end = rest.iter().position(|token| *token == Token::Sign(')'));
                    at += end.unwrap_or(rest.len());
                }
                [token, ..] if token.is("use") && !is_bound(tokens, at) => {
                    let tree = &tokens[at + 1..];
                    let end = tree.iter().position(|token| *token == Token::Sign(';'));
                    let tree = &tree[..end.unwrap_or(tree.len())];
                    self.add_use(own, tree);
                    at += tree.len() + 2;
                }
                [keyword, Token::Word(name), ..] if depth == 0 && defines(keyword) => {
                    self.modules[own].items.insert(name.clone());
                    at += 1;
                }
                [Token::Word(_), Token::Path, Token::Word(_), ..] => {
                    let path = path_at(tokens, at);
                    at += 2 * path.len() - 1;
                    self.modules[own].paths.push(path);
                }
                [Token::Path, Token::Word(_), ..] => at += 2,
                [token, ..] => {
                    match token {
                        Token::Sign('{') => depth += 1,
                        Token::Sign('}') => depth -= 1,
                        _ => {}
                    }
                    at += 1;
                }
                [] => break,
            }
        }
        own
    }

    fn add_use(&mut self, module: usize, tree: &[Token]) {
        for (path, name) in leaves(tree) {
            let module = &mut self.modules[module];
            match name {
                Some(name) => drop(module.used.insert(name, path)),
                None => module.globs.push(path),
            }
        }
    }

    /// The module in which what `path` names is defined; None if that is another crate's, or a
    /// type's own.
    fn resolve(&self, from: usize, path: &[String], depth: usize) -> Option<usize> {
        if depth > REEXPORTS_MAX {
            return None;
        }
        let mut at = from;
        let mut rest = path;
        match path.first()?.as_str() {
            "crate" => (at, rest) = (0, &path[1..]),
            "self" => rest = &path[1..],
            "super" => {
                while rest.first().is_some_and(|word| word == "super") {
                    (at, rest) = (self.modules[at].parent?, &rest[1..]);
                }
            }
            // What is used here is an edge already, by its own path.
            name if !self.modules[at].children.contains_key(name) => return None,
            _ => {}
        }
        self.descend(at, rest, depth)
    }

    fn descend(&self, from: usize, path: &[String], depth: usize) -> Option<usize> {
        let mut at = from;
        for (index, name) in path.iter().enumerate() {
            let module = &self.modules[at];
            if let Some(child) = module.children.get(name) {
                at = *child;
                continue;
            }
            if module.items.contains(name) {
                break;
            }
            let rest = &path[index + 1..];
            if let Some(used) = module.used.get(name) {
                let whole = [used.as_slice(), rest].concat();
                return self.resolve(at, &whole, depth + 1);
            }
            let through_glob = module.globs.iter().find_map(|glob| {
                let target = self.resolve(at, glob, depth + 1)?;
                let target_has = &self.modules[target];
                let has = target_has.children.contains_key(name)
                    || target_has.items.contains(name)
                    || target_has.used.contains_key(name);
                has.then(|| self.descend(target, &path[index..], depth + 1))?
            });
            return through_glob.or(Some(at));
        }
        Some(at)
    }
}

/// Whether `use` is part of `impl Trait + use<'a>`.
fn is_bound(tokens: &[Token], at: usize) -> bool {
    tokens.get(at + 1) == Some(&Token::Sign('<'))
}

fn defines(keyword: &Token) -> bool {
    let keywords = [
        "fn", "struct", "enum", "union", "trait", "type", "const", "static",
    ];
    keywords.iter().any(|known| keyword.is(known))
}

fn path_at(tokens: &[Token], start: usize) -> Words {
    let mut path = Words::new();
    let mut at = start;
    while let Some(Token::Word(word)) = tokens.get(at) {
        path.push(word.clone());
        if tokens.get(at + 1) != Some(&Token::Path) {
            break;
        }
        at += 2;
    }
    path
}

/// Where the brace that opens at `open` closes.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token {
            Token::Sign('{') => depth += 1,
            Token::Sign('}') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    tokens.len()
}

/// The paths of a `use` tree with the name that each has afterwards; no name for a glob.
fn leaves(tree: &[Token]) -> Vec<(Words, Option<String>)> {
    let mut path = Words::new();
    let mut name = None;
    let mut at = 0;
    while at < tree.len() {
        match &tree[at] {
            token if token.is("as") => {
                if let Some(Token::Word(alias)) = tree.get(at + 1) {
                    name = Some(alias.clone());
                }
                at += 1;
            }
            Token::Word(word) => path.push(word.clone()),
            Token::Sign('*') => return vec![(path, None)],
            Token::Sign('{') => {
                let inner = &tree[at + 1..closing(tree, at)];
                let below = |part: &[Token]| {
                    let leaves = leaves(part).into_iter();
                    let whole =
                        leaves.map(|(below, name)| ([path.as_slice(), &below].concat(), name));
                    whole.collect::<Vec<_>>()
                };
                return split(inner).into_iter().flat_map(below).collect();
            }
            Token::Path | Token::Sign(_) => {}
        }
        at += 1;
    }
    // `a::{self}` is `a`.
    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    match (path.last().cloned(), name) {
        (None, _) => Vec::new(),
        (_, Some(name)) => vec![(path, Some(name))],
        (last, None) => vec![(path, last)],
    }
}

/// The parts between commas that are in no inner braces.
fn split(tokens: &[Token]) -> Vec<&[Token]> {
    let mut depth = 0;
    let outer = |token: &Token| {
        match token {
            Token::Sign('{') => depth += 1,
            Token::Sign('}') => depth -= 1,
            _ => {}
        }
        depth == 0 && *token == Token::Sign(',')
    };
    tokens
        .split(outer)
        .filter(|part| !part.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::imports;
    use super::*;

    fn imports_of(files: &[(&str, &str)]) -> Vec<String> {
        let temp = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = temp.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let imports = Crate::read(&temp.path().join("lib.rs")).imports();
        let shown = |(from, to): (&String, &BTreeSet<String>)| {
            let to: Vec<_> = to.iter().map(String::as_str).collect();
            format!("{from}: {}", to.join(" "))
        };
        imports.iter().map(shown).collect()
    }

    #[test]
    fn imports_are_found_in_use_trees_paths_and_through_re_exports() {
        let found = imports_of(&[
            ("lib.rs", "mod a; mod b; pub use b::{B, inner::Deep as D};"),
            (
                "a.rs",
                "use crate::{D, b::B as Bee}; use std::fs; fn f(x: Bee) {}",
            ),
            (
                "b/mod.rs",
                "pub mod inner; pub struct B; use inner::*; pub(in crate::a) fn h() {}",
            ),
            (
                "b/inner.rs",
                "pub struct Deep; fn g() -> crate::a::X { super::B }",
            ),
        ]);
        assert_eq!(
            found,
            [
                "a.rs: b/inner.rs b/mod.rs",
                "b/inner.rs: a.rs b/mod.rs",
                "b/mod.rs: b/inner.rs",
                "lib.rs: b/inner.rs b/mod.rs",
            ]
        );
    }

    #[test]
    fn inline_modules_belong_to_their_file_and_tests_are_not_read() {
        let found = imports_of(&[
            (
                "lib.rs",
                "mod a; mod b { pub(crate) mod c { pub struct C; } }",
            ),
            (
                "a.rs",
                "use crate::b::c::C; #[cfg(test)] mod tests { use crate::gone::X; }",
            ),
        ]);
        assert_eq!(found, ["a.rs: lib.rs"]);
    }

    #[test]
    fn a_child_that_uses_its_parent_is_a_circle_of_two() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(
            temp.path().join("lib.rs"),
            "mod a; struct S; fn f() { a::g() }",
        )
        .unwrap();
        fs::write(temp.path().join("a.rs"), "use super::S; pub fn g() {}").unwrap();
        let imports = Crate::read(&temp.path().join("lib.rs")).imports();
        let circle = BTreeSet::from(["a.rs".to_owned(), "lib.rs".to_owned()]);
        assert_eq!(imports::circles(&imports), [circle]);
    }
}
