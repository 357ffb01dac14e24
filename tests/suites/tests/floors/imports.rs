//! Reads which file of a crate imports from which, and finds circles.
//!
//! ```text
//!   text ──tokens──▶ `use` trees, inline paths ──absolute──▶ path from the root ──through re-exports──▶ file that defines it
//! ```
//!
//! A path counts that begins with `crate`, `self`, `super`, a module beneath, or a name that a `use` brought in. It leads
//! to the file that defines what it names, wherever that is re-exported; `mod x;` alone is no import, nor is what stands
//! under `#[cfg(test)]` or in a file of tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A path from the crate's root, or a module: `["overlay", "path"]`.
type Name = Vec<String>;

/// What one file says.
#[derive(Default)]
struct Source {
    /// What its `use` items bring in: within which module, under what name, what.
    uses: Vec<(Name, String, Name)>,
    /// Its other paths, as they are written.
    paths: Vec<(Name, Name)>,
}

/// The files of a crate, by the module that each is.
pub(crate) struct Imports {
    sources: BTreeMap<Name, Source>,
    /// Names that stand for something else: in which module, under what name.
    aliases: BTreeMap<(Name, String), Name>,
}

impl Imports {
    /// Reads all files beneath a folder of sources.
    pub(crate) fn of(src: &Path) -> Self {
        let mut files = Vec::new();
        collect(src, src, &mut files);
        Self::read(files)
    }

    /// Reads files by their paths beneath the folder of sources.
    pub(crate) fn read(files: impl IntoIterator<Item = (String, String)>) -> Self {
        let sources: BTreeMap<Name, Source> = files
            .into_iter()
            .filter_map(|(path, text)| Some((module_of(&path)?, text)))
            .map(|(module, text)| {
                let source = Reader::new(&module, &text).read();
                (module, source)
            })
            .collect();
        let mut imports = Self {
            sources,
            aliases: BTreeMap::new(),
        };
        imports.aliases = imports.all_uses().into_iter().collect();
        imports
    }

    fn all_uses(&self) -> Vec<((Name, String), Name)> {
        let uses = self.sources.values().flat_map(|source| &source.uses);
        uses.filter_map(|(module, name, path)| {
            let target = self.absolute(module, path, false)?;
            Some(((module.clone(), name.clone()), target))
        })
        .collect()
    }

    /// Groups of modules that import one another, directly or by way of others.
    pub(crate) fn circles(&self) -> Vec<BTreeSet<String>> {
        circles(&self.arrows())
    }

    /// The same of the crate's top modules, each with all beneath it.
    pub(crate) fn circles_of_top_modules(&self) -> Vec<BTreeSet<String>> {
        let top = |name: &str| name.split("::").next().unwrap_or(name).to_owned();
        let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in self.arrows() {
            let own = top(&from);
            let others = to.iter().map(|to| top(to)).filter(|to| *to != own);
            arrows.entry(own.clone()).or_default().extend(others);
        }
        circles(&arrows)
    }

    /// Which module imports from which.
    fn arrows(&self) -> BTreeMap<String, BTreeSet<String>> {
        let arrows = self.sources.iter().map(|(module, source)| {
            let uses = source.uses.iter();
            let used = uses.filter_map(|(within, _, path)| self.absolute(within, path, false));
            let paths = source.paths.iter();
            let named = paths.filter_map(|(within, path)| self.absolute(within, path, true));
            let targets = used.chain(named).filter_map(|path| self.definer(&path, 8));
            let others = targets.filter(|target| target != module);
            (shown(module), others.map(|target| shown(&target)).collect())
        });
        arrows.collect()
    }

    /// A path from the crate's root; `None` where it leads out of the crate.
    fn absolute(&self, within: &[String], path: &[String], by_alias: bool) -> Option<Name> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => return Some(rest.to_vec()),
            "self" => return Some([within, rest].concat()),
            "super" => {
                let ups = path.iter().take_while(|part| *part == "super").count();
                let kept = within.len().checked_sub(ups)?;
                return Some([&within[..kept], &path[ups..]].concat());
            }
            _ => {}
        }
        let beneath = [within, path].concat();
        if self.sources.contains_key(&beneath[..=within.len()]) {
            return Some(beneath);
        }
        let alias = self.aliases.get(&(within.to_vec(), first.clone()))?;
        by_alias.then(|| [alias, rest].concat())
    }

    /// The module whose file defines what a path names; `None` for a module itself.
    fn definer(&self, path: &[String], patience: u8) -> Option<Name> {
        if self.sources.contains_key(path) {
            return None;
        }
        let home = (0..=path.len())
            .rev()
            .map(|len| &path[..len])
            .find(|home| self.sources.contains_key(*home))?;
        let (name, rest) = path[home.len()..].split_first()?;
        match self.aliases.get(&(home.to_vec(), name.clone())) {
            Some(target) if patience > 0 && target != path => {
                self.definer(&[target, rest].concat(), patience - 1)
            }
            Some(_) | None => Some(home.to_vec()),
        }
    }
}

fn shown(module: &[String]) -> String {
    match module {
        [] => "(root)".to_owned(),
        path => path.join("::"),
    }
}

/// Groups of names that reach one another.
fn circles(arrows: &BTreeMap<String, BTreeSet<String>>) -> Vec<BTreeSet<String>> {
    let reach: BTreeMap<&String, BTreeSet<&String>> = arrows
        .keys()
        .map(|from| (from, reachable(arrows, from)))
        .collect();
    let mut found: Vec<BTreeSet<String>> = Vec::new();
    for (from, there) in &reach {
        let back = |to: &&&String| reach.get(**to).is_some_and(|back| back.contains(*from));
        let circle: BTreeSet<String> = there.iter().filter(back).map(|&to| to.clone()).collect();
        if circle.len() > 1 && !found.contains(&circle) {
            found.push(circle);
        }
    }
    found
}

fn reachable<'a>(
    arrows: &'a BTreeMap<String, BTreeSet<String>>,
    from: &'a String,
) -> BTreeSet<&'a String> {
    let mut seen = BTreeSet::new();
    let mut next = vec![from];
    while let Some(at) = next.pop() {
        for to in arrows.get(at).into_iter().flatten() {
            if seen.insert(to) {
                next.push(to);
            }
        }
    }
    seen
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<(String, String)>) {
    let entries = fs::read_dir(folder).expect("a folder of sources");
    for path in entries.map(|entry| entry.expect("an entry").path()) {
        if path.is_dir() {
            collect(root, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).expect("beneath the root");
            let text = fs::read_to_string(&path).expect("a source");
            files.push((name.to_string_lossy().into_owned(), text));
        }
    }
}

/// Which module a file is; `None` for one of tests.
fn module_of(path: &str) -> Option<Name> {
    let mut parts: Name = path
        .strip_suffix(".rs")?
        .split('/')
        .map(str::to_owned)
        .collect();
    if parts.iter().any(|part| part.ends_with("tests")) {
        return None;
    }
    let last = parts.last()?;
    if last == "mod" || (parts.len() == 1 && (last == "lib" || last == "main")) {
        parts.pop();
    }
    Some(parts)
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    /// `::`
    Path,
    Mark(char),
}

/// Goes through the tokens of one file.
struct Reader<'a> {
    module: &'a [String],
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    /// Modules within the file, with the depth of their braces.
    inner: Vec<(String, usize)>,
    source: Source,
}

impl<'a> Reader<'a> {
    fn new(module: &'a [String], text: &str) -> Self {
        Self {
            module,
            tokens: tokens(text),
            at: 0,
            depth: 0,
            inner: Vec::new(),
            source: Source::default(),
        }
    }

    fn read(mut self) -> Source {
        while let Some(token) = self.tokens.get(self.at).cloned() {
            match token {
                Token::Mark('#') if self.is_test_attribute() => self.skip_item(),
                Token::Mark('{') => self.open(),
                Token::Mark('}') => self.close(),
                Token::Word(word) if word == "use" => self.read_use(),
                Token::Word(_) if !self.follows_path() => self.read_path(),
                Token::Word(_) | Token::Path | Token::Mark(_) => self.at += 1,
            }
        }
        self.source
    }

    fn within(&self) -> Name {
        let inner = self.inner.iter().map(|(name, _)| name.clone());
        self.module.iter().cloned().chain(inner).collect()
    }

    fn word(&self, at: usize) -> Option<&str> {
        match self.tokens.get(at)? {
            Token::Word(word) => Some(word),
            Token::Path | Token::Mark(_) => None,
        }
    }

    fn is(&self, at: usize, token: &Token) -> bool {
        self.tokens.get(at) == Some(token)
    }

    fn follows_path(&self) -> bool {
        self.at > 0 && self.is(self.at - 1, &Token::Path)
    }

    /// `#[cfg(test)]`
    fn is_test_attribute(&self) -> bool {
        self.word(self.at + 2) == Some("cfg")
            && self.word(self.at + 4) == Some("test")
            && self.is(self.at + 5, &Token::Mark(')'))
    }

    /// Goes behind the next item: to its semicolon, or the end of its braces.
    fn skip_item(&mut self) {
        let mut depth = 0_usize;
        while let Some(token) = self.tokens.get(self.at) {
            self.at += 1;
            match token {
                Token::Mark('{') => depth += 1,
                Token::Mark('}') => {
                    depth -= 1;
                    if depth == 0 {
                        return;
                    }
                }
                Token::Mark(';') if depth == 0 => return,
                Token::Mark(_) | Token::Path | Token::Word(_) => {}
            }
        }
    }

    fn open(&mut self) {
        if self.at >= 2
            && self.word(self.at - 2) == Some("mod")
            && let Some(name) = self.word(self.at - 1)
        {
            self.inner.push((name.to_owned(), self.depth));
        }
        self.depth += 1;
        self.at += 1;
    }

    fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.inner.pop_if(|(_, depth)| *depth == self.depth);
        self.at += 1;
    }

    fn read_path(&mut self) {
        let mut path = Vec::new();
        while let Some(word) = self.word(self.at) {
            path.push(word.to_owned());
            self.at += 1;
            if !self.is(self.at, &Token::Path) {
                break;
            }
            self.at += 1;
        }
        if path.len() > 1 {
            self.source.paths.push((self.within(), path));
        }
    }

    fn read_use(&mut self) {
        self.at += 1;
        if self.is(self.at, &Token::Mark('<')) {
            return; // what an `impl Trait` captures
        }
        let within = self.within();
        self.tree(&within, &[]);
    }

    /// Reads one branch of a `use` tree, and all beneath it.
    fn tree(&mut self, within: &[String], stem: &[String]) {
        let mut path = stem.to_vec();
        loop {
            match self.tokens.get(self.at).cloned() {
                Some(Token::Word(word)) if word == "as" => {
                    let name = self.word(self.at + 1).unwrap_or("_").to_owned();
                    self.at += 2;
                    return self.bring(within, name, path);
                }
                Some(Token::Word(word)) => {
                    if word != "self" || path.is_empty() {
                        path.push(word);
                    }
                    self.at += 1;
                }
                Some(Token::Path) => self.at += 1,
                Some(Token::Mark('{')) => return self.branches(within, &path),
                Some(Token::Mark('*')) => {
                    self.at += 1;
                    path.push("*".to_owned());
                }
                Some(Token::Mark(_)) | None => {
                    if let Some(name) = path.last().cloned() {
                        self.bring(within, name, path);
                    }
                    return;
                }
            }
        }
    }

    fn branches(&mut self, within: &[String], stem: &[String]) {
        self.at += 1;
        while self.at < self.tokens.len() {
            match &self.tokens[self.at] {
                Token::Mark('}') => {
                    self.at += 1;
                    return;
                }
                Token::Mark(',') => self.at += 1,
                Token::Mark(_) | Token::Path | Token::Word(_) => self.tree(within, stem),
            }
        }
    }

    fn bring(&mut self, within: &[String], name: String, path: Name) {
        self.source.uses.push((within.to_vec(), name, path));
    }
}

/// Takes a text apart, without comments. A string is left out unless it is a path of this crate, as attributes have it.
fn tokens(text: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let len = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '"' => {
                let len = quoted(rest);
                let content = rest.get(1..len - 1).unwrap_or_default();
                if content.starts_with("crate::") {
                    found.extend(tokens(content));
                }
                len
            }
            'r' if raw(rest).is_some() => raw(rest).unwrap_or(1),
            '\'' => character(rest),
            ':' if rest.starts_with("::") => {
                found.push(Token::Path);
                2
            }
            _ if first.is_alphanumeric() || first == '_' => {
                let end = |c: char| !(c.is_alphanumeric() || c == '_');
                let len = rest.find(end).unwrap_or(rest.len());
                found.push(Token::Word(rest[..len].to_owned()));
                len
            }
            _ => {
                if !first.is_whitespace() {
                    found.push(Token::Mark(first));
                }
                first.len_utf8()
            }
        };
        rest = &rest[len..];
    }
    found
}

/// How long the string is that a text begins with.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            _ => escaped = c == '\\' && !escaped,
        }
    }
    text.len()
}

/// How long the raw string is that a text begins with, if it begins with one.
fn raw(text: &str) -> Option<usize> {
    let hashes = text[1..].chars().take_while(|c| *c == '#').count();
    let open = 1 + hashes;
    if !text[open..].starts_with('"') {
        return None;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let body = &text[open + 1..];
    Some(open + 1 + body.find(&end)? + end.len())
}

/// How long the character is that a text begins with; of a lifetime, its mark.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), _) => {
            let end = text[3..].find('\'');
            end.map_or(text.len(), |end| 3 + end + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}
