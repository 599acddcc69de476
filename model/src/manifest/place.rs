//! Reading a manifest's tree: where a value stands, and what is wrong with it.
//!
//! A reader gives `None` when it has reported an error. It reads all its fields before it gives up, so that one run
//! shows every error; a parse with any report fails as a whole.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::error::{ManifestError, Problem, nearest};
use super::tree::{Node, Value};
use crate::kinds::Text;

/// A type that a manifest's value can be.
pub(crate) trait Field: Sized {
    /// What is expected, as a noun phrase.
    const EXPECTS: &'static str;

    /// The value at a place; nothing after an error was reported.
    fn read(place: &Place<'_>) -> Option<Self>;
}

impl<T: Text> Field for T {
    const EXPECTS: &'static str = T::FORM;

    fn read(place: &Place<'_>) -> Option<Self> {
        match &place.node.value {
            Value::Text(text) => place.parse(text),
            Value::Boolean(_) | Value::Integer(_) | Value::Number(_) => {
                let found = format!("{} (a text needs quotes here)", place.node.value);
                place.refuse(Problem::WrongType {
                    expects: T::FORM,
                    found,
                });
                None
            }
            _ => place.wrong_type(T::FORM),
        }
    }
}

impl Field for bool {
    const EXPECTS: &'static str = "true or false";

    fn read(place: &Place<'_>) -> Option<Self> {
        match place.node.value {
            Value::Boolean(value) => Some(value),
            _ => place.wrong_type(Self::EXPECTS),
        }
    }
}

/// The errors of one file.
pub(super) struct Report {
    file: Arc<str>,
    errors: RefCell<Vec<ManifestError>>,
}

impl Report {
    pub(super) fn new(file: Arc<str>) -> Self {
        Self {
            file,
            errors: RefCell::default(),
        }
    }

    pub(super) fn add(&self, line: u32, field: &str, problem: Problem) {
        let error = ManifestError {
            file: Arc::clone(&self.file),
            line,
            field: field.to_owned(),
            problem,
        };
        self.errors.borrow_mut().push(error);
    }

    /// The errors, by their lines.
    pub(super) fn into_errors(self) -> Vec<ManifestError> {
        let mut errors = self.errors.into_inner();
        errors.sort_by_key(|error| error.line);
        errors
    }
}

/// A value of a manifest, and where it stands.
pub(crate) struct Place<'a> {
    node: &'a Node,
    path: String,
    report: &'a Report,
}

impl<'a> Place<'a> {
    pub(super) const fn root(node: &'a Node, report: &'a Report) -> Self {
        Self {
            node,
            path: String::new(),
            report,
        }
    }

    /// What stands here.
    pub(crate) fn read<T: Field>(&self) -> Option<T> {
        T::read(self)
    }

    /// Whether it is `true` or `false`.
    pub(crate) const fn is_boolean(&self) -> bool {
        matches!(self.node.value, Value::Boolean(_))
    }

    /// A text as a `T`.
    pub(crate) fn parse<T: Text>(&self, text: &str) -> Option<T> {
        text.parse()
            .map_err(|invalid| self.refuse(Problem::Invalid(invalid)))
            .ok()
    }

    /// The integer here, if `make` takes it.
    pub(crate) fn integer<T>(
        &self,
        expects: &'static str,
        make: impl FnOnce(i128) -> Option<T>,
    ) -> Option<T> {
        let Value::Integer(value) = self.node.value else {
            return self.wrong_type(expects);
        };
        let made = make(value);
        if made.is_none() {
            self.refuse(Problem::OutOfRange {
                value: value.to_string(),
                expects,
            });
        }
        made
    }

    /// The number here, whole or not, if `takes` takes it.
    pub(crate) fn number(&self, expects: &'static str, takes: impl FnOnce(f64) -> bool) -> Option<f64> {
        let number = match self.node.value {
            Value::Number(value) => value,
            Value::Integer(value) => i32::try_from(value).map_or(f64::INFINITY, f64::from),
            _ => return self.wrong_type(expects),
        };
        if takes(number) {
            return Some(number);
        }
        let value = self.node.value.to_string().replace("the number ", "");
        self.refuse(Problem::OutOfRange { value, expects });
        None
    }

    /// The mapping here, read by its fields. Those that the reader does not ask for are unknown.
    pub(crate) fn fields<T: Field>(&self, read: impl FnOnce(&Fields<'_>) -> Option<T>) -> Option<T> {
        let places = self.entries(T::EXPECTS)?;
        let fields = Fields {
            place: self,
            places,
            known: RefCell::default(),
        };
        let value = read(&fields);
        fields.refuse_unknown();
        value
    }

    /// The mapping here, key by key, each key once.
    pub(crate) fn entries(&self, expects: &'static str) -> Option<Vec<(&'a str, Place<'a>)>> {
        let Value::Map(entries) = &self.node.value else {
            return self.wrong_type(expects);
        };
        let mut places = Vec::with_capacity(entries.len());
        let mut lines = HashMap::with_capacity(entries.len());
        for (key, node) in entries {
            let place = self.inner(node, self.path_of(key));
            match lines.entry(key.as_str()) {
                Entry::Occupied(first) => place.refuse(Problem::Repeated { first: *first.get() }),
                Entry::Vacant(vacant) => {
                    vacant.insert(node.line);
                    places.push((key.as_str(), place));
                }
            }
        }
        Some(places)
    }

    /// The list here.
    fn items(&self, expects: &'static str) -> Option<Vec<Place<'a>>> {
        let Value::List(items) = &self.node.value else {
            return self.wrong_type(expects);
        };
        let place = |(index, node)| self.inner(node, format!("{}[{index}]", self.path));
        Some(items.iter().enumerate().map(place).collect())
    }

    const fn inner(&self, node: &'a Node, path: String) -> Self {
        Self {
            node,
            path,
            report: self.report,
        }
    }

    fn path_of(&self, field: &str) -> String {
        if self.path.is_empty() {
            field.to_owned()
        } else {
            format!("{}.{field}", self.path)
        }
    }

    fn refuse(&self, problem: Problem) {
        self.report.add(self.node.line, &self.path, problem);
    }

    fn wrong_type<T>(&self, expects: &'static str) -> Option<T> {
        self.refuse(Problem::WrongType {
            expects,
            found: self.node.value.to_string(),
        });
        None
    }
}

/// A mapping whose fields are known by name. A field with no value (`site:`) is as absent.
pub(crate) struct Fields<'a> {
    place: &'a Place<'a>,
    places: Vec<(&'a str, Place<'a>)>,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Fields<'a> {
    /// A field that must be given.
    pub(crate) fn required<T: Field>(&self, name: &'static str) -> Option<T> {
        self.required_place(name, T::EXPECTS)?.read()
    }

    /// A field that may be absent.
    #[expect(
        clippy::option_option,
        reason = "the outer one is nothing after an error, as everywhere here"
    )]
    pub(crate) fn optional<T: Field>(&self, name: &'static str) -> Option<Option<T>> {
        match self.get(name) {
            Some(place) => place.read().map(Some),
            None => Some(None),
        }
    }

    /// A field with a default.
    pub(crate) fn or<T: Field>(&self, name: &'static str, default: T) -> Option<T> {
        self.get(name).map_or(Some(default), Place::read)
    }

    /// A list that must be given, with at least one item.
    pub(crate) fn list<T: Field>(&self, name: &'static str, expects: &'static str) -> Option<Vec<T>> {
        Self::read_list(self.required_place(name, expects)?, expects)
    }

    /// A list that may be absent; where it is given, with at least one item.
    #[expect(
        clippy::option_option,
        reason = "the outer one is nothing after an error, as everywhere here"
    )]
    pub(crate) fn optional_list<T: Field>(
        &self,
        name: &'static str,
        expects: &'static str,
    ) -> Option<Option<Vec<T>>> {
        match self.get(name) {
            Some(place) => Self::read_list(place, expects).map(Some),
            None => Some(None),
        }
    }

    /// An angle in degrees, at most `limit` to either side of zero.
    pub(crate) fn degrees(&self, name: &'static str, expects: &'static str, limit: f64) -> Option<f64> {
        let place = self.required_place(name, expects)?;
        place.number(expects, |degrees| degrees.abs() <= limit)
    }

    /// Takes a field as known without looking at it.
    pub(crate) fn skip(&self, name: &'static str) {
        self.known.borrow_mut().push(name);
    }

    /// Reports an error of a field (`udp_port`) or an item of one (`listeners[1]`).
    pub(crate) fn refuse(&self, field: &str, problem: impl Into<Problem>) {
        let line = self.place.node.line_of(field);
        self.place.report.add(line, &self.path_of(field), problem.into());
    }

    /// A field's path from the object's root.
    pub(crate) fn path_of(&self, field: &str) -> String {
        self.place.path_of(field)
    }

    fn read_list<T: Field>(place: &Place<'_>, expects: &'static str) -> Option<Vec<T>> {
        let items = place.items(expects)?;
        if items.is_empty() {
            place.refuse(Problem::Empty { expects });
            return None;
        }
        // All are read before the first refused one ends it: each error is reported.
        let items: Vec<Option<T>> = items.iter().map(Place::read).collect();
        items.into_iter().collect()
    }

    fn required_place(&self, name: &'static str, expects: &'static str) -> Option<&Place<'a>> {
        let place = self.get(name);
        if place.is_none() {
            self.refuse(name, Problem::Missing { expects });
        }
        place
    }

    fn get(&self, name: &'static str) -> Option<&Place<'a>> {
        self.known.borrow_mut().push(name);
        let (_, place) = self.places.iter().find(|(key, _)| *key == name)?;
        (!matches!(place.node.value, Value::Null)).then_some(place)
    }

    fn refuse_unknown(&self) {
        let known = self.known.borrow();
        for (key, place) in self.places.iter().filter(|(key, _)| !known.contains(key)) {
            let near = nearest(key, known.iter().copied()).map(str::to_owned);
            place.refuse(Problem::UnknownField {
                near,
                allowed: known.join(", "),
            });
        }
    }
}
