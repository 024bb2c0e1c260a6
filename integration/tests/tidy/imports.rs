//! Which module of a crate names which other module, as its `use` declarations and paths say.

use std::collections::{BTreeMap, BTreeSet};

use super::source::Source;

/// The names that lead to a module from its crate's root; empty for the root.
pub(crate) type Module = Vec<String>;

/// The modules of one crate that are files, and what each imports: without itself and the modules
/// that it lies in, whose items are there for their children.
pub(crate) struct Imports {
    of: BTreeMap<Module, BTreeSet<Module>>,
}

/// What a path in code leads to.
struct Named {
    path: Vec<String>,
    /// What a `use` calls it; `None` in other code.
    name: Option<String>,
    /// A `pub use`: a parent that hands on what its children define imports nothing.
    handed_on: bool,
}

type Names = BTreeMap<Module, Vec<Named>>;

impl Imports {
    /// Of production code in the folder `root`, which ends in `/`.
    pub(crate) fn read<'a>(root: &str, sources: impl Iterator<Item = &'a Source>) -> Self {
        let below = sources.filter_map(|s| Some((module(s.path.strip_prefix(root)?)?, s)));
        let files: BTreeMap<Module, &Source> = below.collect();
        let names: Names =
            files.iter().map(|(m, s)| (m.clone(), named(&s.code, &children(m, &files)))).collect();
        let of = names.iter().map(|(from, named)| {
            let imported = named.iter().filter_map(|one| import(from, one, &names)).collect();
            (from.clone(), imported)
        });
        Self { of: of.collect() }
    }

    /// The modules at the crate's top.
    pub(crate) fn tops(&self) -> BTreeSet<String> {
        self.of.keys().filter_map(|m| m.first().cloned()).collect()
    }

    /// Pairs of modules at the top of which the first imports the second, with a file that does.
    pub(crate) fn between_tops(&self) -> BTreeMap<(String, String), String> {
        let mut found = BTreeMap::new();
        for (from, to) in
            self.of.iter().flat_map(|(from, all)| all.iter().map(move |to| (from, to)))
        {
            if let (Some(a), Some(b)) = (from.first(), to.first())
                && a != b
            {
                found.entry((a.clone(), b.clone())).or_insert_with(|| from.join("::"));
            }
        }
        found
    }

    /// Files of one module at the top that import each other, directly or over others of it: the
    /// strongly connected components of more than one.
    pub(crate) fn cycles(&self) -> BTreeSet<BTreeSet<String>> {
        let reached: BTreeMap<&Module, BTreeSet<&Module>> =
            self.of.keys().map(|m| (m, self.reached(m))).collect();
        let cycle = |m: &Module| -> BTreeSet<String> {
            let back = |o: &&&Module| reached.get(**o).is_some_and(|r| r.contains(m));
            reached[m].iter().filter(back).map(|o| o.join("::")).collect()
        };
        self.of.keys().map(cycle).filter(|cycle| cycle.len() > 1).collect()
    }

    /// What a module imports, directly or over others of the same module at the top.
    fn reached<'a>(&'a self, from: &'a Module) -> BTreeSet<&'a Module> {
        let mut found = BTreeSet::new();
        let mut open = vec![from];
        while let Some(next) = open.pop() {
            let imported = self.of.get(next).into_iter().flatten();
            let inside = imported.filter(|m| m.first() == from.first());
            open.extend(inside.filter(|m| found.insert(*m)));
        }
        found
    }
}

/// The module that a file is, from its path below `src`; `None` for other programs of the crate.
fn module(path: &str) -> Option<Module> {
    let path = path.strip_suffix(".rs").filter(|path| !path.starts_with("bin/"))?;
    Some(match path.strip_suffix("/mod").unwrap_or(path) {
        "lib" | "main" => Vec::new(),
        path => path.split('/').map(str::to_owned).collect(),
    })
}

fn children(of: &Module, files: &BTreeMap<Module, &Source>) -> BTreeSet<String> {
    let below = files.keys().filter(|m| m.len() == of.len() + 1 && m.starts_with(of));
    below.filter_map(|m| m.last().cloned()).collect()
}

/// The module that `one`, named in `from`, imports.
fn import(from: &Module, one: &Named, names: &Names) -> Option<Module> {
    let to = defined_in(from, &one.path, names, MOST_HANDS)?;
    let own = from.starts_with(&to) || (one.handed_on && to.starts_with(from));
    (!own).then_some(to)
}

/// Through so many `use` declarations a name is followed: globs may lead in a cycle.
const MOST_HANDS: usize = 8;

/// The module file that defines what a path leads to, through the `use` declarations on its way.
fn defined_in(from: &Module, path: &[String], names: &Names, hands: usize) -> Option<Module> {
    let mut at = from.clone();
    for name in path {
        match name.as_str() {
            "crate" => at.clear(),
            "self" => {}
            "super" => drop(at.pop()),
            name => {
                at.push(name.to_owned());
                if names.contains_key(&at) {
                    continue;
                }
                at.pop();
                let given = |n: &&Named| n.name.as_deref() == Some(name) && n.path != path;
                return match names.get(&at)?.iter().find(given).filter(|_| hands > 0) {
                    Some(given) => defined_in(&at, &given.path, names, hands - 1),
                    None => Some(at),
                };
            }
        }
    }
    Some(at)
}

/// Every path that begins at the crate, at the module itself, at its parent or at one of its
/// children.
fn named(code: &str, children: &BTreeSet<String>) -> Vec<Named> {
    let begins = |word: &str| matches!(word, "crate" | "self" | "super") || children.contains(word);
    let words = words(code);
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(&word) = words.get(at) {
        let goes_on = words.get(at + 1) == Some(&"::") && (at == 0 || words[at - 1] != "::");
        at = match word {
            // In a type, `use<'_>` says what is captured.
            "use" if words.get(at + 1) != Some(&"<") => {
                let handed_on = at > 0 && matches!(words[at - 1], "pub" | ")");
                tree(&words, at + 1, &[], handed_on, &mut found)
            }
            word if goes_on && begins(word) => plain(&words, at, &mut found),
            _ => at + 1,
        };
    }
    found.retain(|n| n.path.first().is_some_and(|first| begins(first)));
    found
}

/// Reads a path in code that is no `use`; where it ends.
fn plain(words: &[&str], mut at: usize, found: &mut Vec<Named>) -> usize {
    let mut path = vec![words[at].to_owned()];
    while let [_, "::", next, ..] = words[at..]
        && next.starts_with(|c: char| c.is_alphabetic() || c == '_')
    {
        path.push(next.to_owned());
        at += 2;
    }
    found.push(Named { path, name: None, handed_on: false });
    at + 1
}

/// Reads one tree of a `use`, below the path `before`; where it ends.
fn tree(
    words: &[&str],
    mut at: usize,
    before: &[String],
    handed_on: bool,
    found: &mut Vec<Named>,
) -> usize {
    let mut path = before.to_vec();
    while let Some(&word) = words.get(at) {
        match word {
            "," | "}" | ";" | "as" => break,
            "{" => return branches(words, at + 1, &path, handed_on, found),
            "::" => {}
            "self" if !path.is_empty() => {}
            word => path.push(word.to_owned()),
        }
        at += 1;
    }
    let renamed = (words.get(at) == Some(&"as")).then(|| words.get(at + 1)).flatten();
    let name = renamed.map(|name| (*name).to_owned()).or_else(|| path.last().cloned());
    found.push(Named { path, name, handed_on });
    at + if renamed.is_some() { 2 } else { 0 }
}

/// Reads the trees between braces; where they end.
fn branches(
    words: &[&str],
    mut at: usize,
    before: &[String],
    handed_on: bool,
    found: &mut Vec<Named>,
) -> usize {
    while words.get(at).is_some_and(|word| *word != "}") {
        at = tree(words, at, before, handed_on, found);
        at += usize::from(words.get(at) == Some(&","));
    }
    at + 1
}

/// Names, `::`, and every other character by itself.
fn words(code: &str) -> Vec<&str> {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            _ if inside(first) => rest.find(|c| !inside(c)).unwrap_or(rest.len()),
            ':' if rest.starts_with("::") => 2,
            _ => first.len_utf8(),
        };
        found.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imports(files: &[(&str, &str)]) -> Imports {
        let source = |(path, code): &(&str, &str)| Source {
            path: format!("src/{path}"),
            text: String::new(),
            code: (*code).to_owned(),
        };
        Imports::read("src/", files.iter().map(source).collect::<Vec<_>>().iter())
    }

    #[test]
    fn every_way_to_name_a_module_is_an_import() {
        for code in [
            "use crate::b::X;",
            "use crate::{b::{self, X as Y}, c};",
            "pub use super::b::X;",
            "fn f() { crate::b::f() }",
            "fn f() -> impl Sized + use<'_> { super::b::f::<u8>() }",
            "$crate::b::f()",
            "use crate::X;",
            "use super::c::Z;",
        ] {
            let root = ("lib.rs", "pub use b::X; mod a; mod b; mod c;");
            let files = [root, ("a.rs", code), ("b.rs", ""), ("c.rs", "pub use crate::b::Z;")];
            let found = imports(&files).between_tops();
            assert!(found.contains_key(&("a".to_owned(), "b".to_owned())), "{code}: {found:?}");
        }
        for code in ["use b::X;", "fn f() { other::b::f() }", "use self::X;", "use super::*;"] {
            let found = imports(&[("lib.rs", "mod a;"), ("a.rs", code), ("b.rs", "")]);
            assert!(found.between_tops().is_empty(), "{code}");
        }
    }

    #[test]
    fn files_that_import_each_other_are_a_cycle_and_parents_are_none() {
        let parent = ("a/mod.rs", "pub use x::X; use y::Y; mod x; mod y;");
        let cycle =
            |x, y| imports(&[("lib.rs", ""), parent, ("a/x.rs", x), ("a/y.rs", y)]).cycles();
        assert!(cycle("use super::A;", "use super::X;").is_empty());
        let expected = BTreeSet::from([["a::x".to_owned(), "a::y".to_owned()].into()]);
        assert_eq!(cycle("fn f() { super::y::f() }", "use super::X;"), expected);
    }
}
