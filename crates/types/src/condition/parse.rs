//! The reader: words, then a descent through `||`, `&&`, `!` and comparisons.

use std::{iter::Peekable, time::Duration, vec::IntoIter};

use super::{Attribute, ConditionError, DEPTH_MAX, Kind, Literal, Node, Operator, Search, TEXT_MAX};
use crate::Text;

#[derive(Debug, Clone, PartialEq)]
enum Word {
    /// A dotted name.
    Name(String),
    Text(String),
    Number(i64),
    Sign(&'static str),
}

/// The longer ones first.
const SIGNS: [&str; 17] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "(", ")", "[", "]", ",", ".", "?", ":",
];

type Words = Peekable<IntoIter<Word>>;
type Read<T> = Result<T, ConditionError>;

fn refuse<T>(why: impl Into<String>) -> Read<T> {
    Err(ConditionError(why.into()))
}

pub(super) fn read(text: &str) -> Read<Node> {
    if text.len() > TEXT_MAX {
        return refuse(format!("it is longer than {TEXT_MAX} bytes"));
    }
    let mut words = split(text)?.into_iter().peekable();
    let node = any(&mut words, 0)?;
    match words.next() {
        None => Ok(node),
        Some(Word::Sign(sign @ ("?" | ":"))) => refuse(format!("`{sign}`: ternaries are not supported")),
        Some(word) => refuse(format!("{} is one too many", shown(&word))),
    }
}

fn shown(word: &Word) -> String {
    match word {
        Word::Name(name) => format!("`{name}`"),
        Word::Text(text) => format!("`'{text}'`"),
        Word::Number(number) => format!("`{number}`"),
        Word::Sign(sign) => format!("`{sign}`"),
    }
}

fn split(text: &str) -> Read<Vec<Word>> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length;
        if first == '\'' || first == '"' {
            let inner = rest.get(1..).unwrap_or_default();
            let Some(end) = inner.find(first) else {
                return refuse("a text has no closing quote");
            };
            let inner = inner.get(..end).unwrap_or_default();
            if inner.contains('\\') {
                return refuse("escapes in texts are not supported");
            }
            words.push(Word::Text(inner.to_owned()));
            length = end + 2;
        } else if first.is_ascii_digit() || (first == '-' && rest.get(1..2).is_some_and(is_digits)) {
            let digits = rest.get(1..).unwrap_or_default();
            length = 1 + digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
            let number = rest.get(..length).unwrap_or_default();
            let Ok(number) = number.parse() else {
                return refuse(format!("`{number}` is too large"));
            };
            if rest.get(length..).is_some_and(|after| after.starts_with('.')) {
                return refuse("fractions are not supported");
            }
            words.push(Word::Number(number));
        } else if first.is_ascii_alphabetic() || first == '_' {
            length = rest
                .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                .unwrap_or(rest.len());
            words.push(Word::Name(rest.get(..length).unwrap_or_default().to_owned()));
        } else if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
            length = sign.len();
            words.push(Word::Sign(sign));
        } else {
            return refuse(format!("`{first}` is not supported"));
        }
        rest = rest.get(length..).unwrap_or_default().trim_start();
    }
    Ok(words)
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

fn takes(words: &mut Words, sign: &'static str) -> bool {
    words.next_if_eq(&Word::Sign(sign)).is_some()
}

fn expect(words: &mut Words, sign: &'static str) -> Read<()> {
    match words.next() {
        Some(Word::Sign(found)) if found == sign => Ok(()),
        Some(found) => refuse(format!("`{sign}` is missing before {}", shown(&found))),
        None => refuse(format!("`{sign}` is missing at the end")),
    }
}

fn any(words: &mut Words, depth: usize) -> Read<Node> {
    let mut nodes = vec![all(words, depth)?];
    while takes(words, "||") {
        nodes.push(all(words, depth)?);
    }
    Ok(one_or(nodes, Node::Any))
}

fn all(words: &mut Words, depth: usize) -> Read<Node> {
    let mut nodes = vec![unary(words, depth)?];
    while takes(words, "&&") {
        nodes.push(unary(words, depth)?);
    }
    Ok(one_or(nodes, Node::All))
}

fn one_or(mut nodes: Vec<Node>, several: fn(Vec<Node>) -> Node) -> Node {
    match nodes.pop() {
        Some(node) if nodes.is_empty() => node,
        Some(node) => {
            nodes.push(node);
            several(nodes)
        }
        None => several(nodes),
    }
}

fn unary(words: &mut Words, depth: usize) -> Read<Node> {
    if depth > DEPTH_MAX {
        return refuse(format!("it is nested deeper than {DEPTH_MAX}"));
    }
    if takes(words, "!") {
        return unary(words, depth + 1).map(|node| Node::Not(Box::new(node)));
    }
    if takes(words, "(") {
        let node = any(words, depth + 1)?;
        expect(words, ")")?;
        return Ok(node);
    }
    match words.next() {
        None => refuse("a condition is missing at the end"),
        Some(Word::Name(name)) => named(words, name),
        Some(Word::Text(text)) => literal_first(words, Literal::Text(text.into())),
        Some(Word::Number(number)) => literal_first(words, Literal::Number(number)),
        Some(sign) => refuse(format!("{} stands where a condition should", shown(&sign))),
    }
}

fn named(words: &mut Words, first: String) -> Read<Node> {
    match &*first {
        "true" | "false" => {
            let value = first == "true";
            let compares = matches!(words.peek(), Some(Word::Sign("==" | "!=")));
            return if compares {
                literal_first(words, Literal::Truth(value))
            } else {
                Ok(Node::Constant(value))
            };
        }
        "has" => {
            expect(words, "(")?;
            let attribute = match words.next() {
                Some(Word::Name(name)) => attribute(words, name)?.0,
                _ => return refuse("`has` takes an attribute"),
            };
            expect(words, ")")?;
            return Ok(Node::Has(attribute));
        }
        "duration" => {
            let literal = duration(words)?;
            return literal_first(words, literal);
        }
        _ => {}
    }
    let (attribute, method) = attribute(words, first)?;
    if let Some(method) = method {
        return search(words, attribute, &method);
    }
    if let Some(operator) = operator(words) {
        let literal = literal(words)?;
        return comparison(attribute, operator, literal);
    }
    if words.next_if_eq(&Word::Name("in".into())).is_some() {
        expect(words, "[")?;
        let mut literals = Vec::new();
        while !takes(words, "]") {
            if !literals.is_empty() {
                expect(words, ",")?;
            }
            let literal = literal(words)?;
            same_kind(&attribute, &literal)?;
            literals.push(literal);
        }
        return Ok(Node::In(attribute, literals));
    }
    if attribute.kind() == Kind::Truth {
        return Ok(Node::Truth(attribute));
    }
    refuse(format!("`{}` is compared with nothing", name_of(&attribute)))
}

/// `LITERAL op ATTRIBUTE`, or `'name' in request.headers`.
fn literal_first(words: &mut Words, literal: Literal) -> Read<Node> {
    if words.next_if_eq(&Word::Name("in".into())).is_some() {
        let (Literal::Text(header), Some(Word::Name(owner))) = (literal, words.next()) else {
            return refuse("`in` takes a list in brackets, request.headers or response.headers");
        };
        let is_headers = takes(words, ".") && words.next_if_eq(&Word::Name("headers".into())).is_some();
        let header = Text::from(header.to_ascii_lowercase());
        return match (&*owner, is_headers) {
            ("request", true) => Ok(Node::Has(Attribute::RequestHeader(header))),
            ("response", true) => Ok(Node::Has(Attribute::ResponseHeader(header))),
            _ => refuse("`in` takes a list in brackets, request.headers or response.headers"),
        };
    }
    let Some(operator) = operator(words) else {
        return refuse("a literal is compared with nothing");
    };
    let attribute = match words.next() {
        Some(Word::Name(name)) => match attribute(words, name)? {
            (attribute, None) => attribute,
            (_, Some(method)) => return refuse(format!("`.{method}()` stands at the left alone")),
        },
        _ => return refuse("one side of a comparison is an attribute"),
    };
    let turned = match operator {
        Operator::Less => Operator::Greater,
        Operator::LessOrEqual => Operator::GreaterOrEqual,
        Operator::Greater => Operator::Less,
        Operator::GreaterOrEqual => Operator::LessOrEqual,
        same => same,
    };
    comparison(attribute, turned, literal)
}

fn comparison(attribute: Attribute, operator: Operator, literal: Literal) -> Read<Node> {
    same_kind(&attribute, &literal)?;
    Ok(Node::Compare(attribute, operator, literal))
}

fn same_kind(attribute: &Attribute, literal: &Literal) -> Read<()> {
    let (kind, what) = match literal {
        Literal::Text(_) => (Kind::Text, "a text"),
        Literal::Number(_) => (Kind::Number, "a number"),
        Literal::Truth(_) => (Kind::Truth, "true or false"),
        Literal::Duration(_) => (Kind::Duration, "a duration"),
    };
    if attribute.kind() == kind {
        return Ok(());
    }
    let is = match attribute.kind() {
        Kind::Text => "a text",
        Kind::Number => "a number",
        Kind::Truth => "true or false",
        Kind::Duration => "a duration, which is written `duration('500ms')`",
    };
    refuse(format!("`{}` is {is}, not {what}", name_of(attribute)))
}

fn search(words: &mut Words, attribute: Attribute, method: &str) -> Read<Node> {
    let search = match method {
        "startsWith" => Search::StartsWith,
        "endsWith" => Search::EndsWith,
        "contains" => Search::Contains,
        _ => return refuse(format!("the function `{method}` is not supported")),
    };
    if attribute.kind() != Kind::Text {
        return refuse(format!("`{}` is no text to search in", name_of(&attribute)));
    }
    expect(words, "(")?;
    let Some(Word::Text(wanted)) = words.next() else {
        return refuse(format!("`{method}` takes a text in quotes"));
    };
    expect(words, ")")?;
    Ok(Node::Search(attribute, search, wanted.into()))
}

fn operator(words: &mut Words) -> Option<Operator> {
    let operator = match words.peek()? {
        Word::Sign("==") => Operator::Equal,
        Word::Sign("!=") => Operator::NotEqual,
        Word::Sign("<") => Operator::Less,
        Word::Sign("<=") => Operator::LessOrEqual,
        Word::Sign(">") => Operator::Greater,
        Word::Sign(">=") => Operator::GreaterOrEqual,
        _ => return None,
    };
    words.next();
    Some(operator)
}

fn literal(words: &mut Words) -> Read<Literal> {
    match words.next() {
        Some(Word::Text(text)) => Ok(Literal::Text(text.into())),
        Some(Word::Number(number)) => Ok(Literal::Number(number)),
        Some(Word::Name(name)) if name == "true" || name == "false" => Ok(Literal::Truth(name == "true")),
        Some(Word::Name(name)) if name == "duration" => duration(words),
        Some(word) => refuse(format!(
            "{} is no text, number, true, false or duration",
            shown(&word)
        )),
        None => refuse("a comparison lacks its right side"),
    }
}

/// After `duration`: a number and `ms`, `s`, `m` or `h` in quotes.
fn duration(words: &mut Words) -> Read<Literal> {
    expect(words, "(")?;
    let Some(Word::Text(text)) = words.next() else {
        return refuse("`duration` takes a text in quotes");
    };
    expect(words, ")")?;
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return refuse(format!("`{text}` is no duration such as `500ms` or `2s`")),
    };
    let ms = number
        .parse()
        .ok()
        .and_then(|number: u64| number.checked_mul(unit_ms));
    match ms {
        Some(ms) => Ok(Literal::Duration(Duration::from_millis(ms))),
        None => refuse(format!("`{text}` is no duration such as `500ms` or `2s`")),
    }
}

/// The attribute that begins with `first`, and the method that is called on it.
fn attribute(words: &mut Words, first: String) -> Read<(Attribute, Option<String>)> {
    let mut name = first;
    loop {
        if matches!(&*name, "request.headers" | "response.headers") {
            expect(words, "[")?;
            let Some(Word::Text(header)) = words.next() else {
                return refuse(format!("`{name}` takes a header's name in quotes"));
            };
            expect(words, "]")?;
            let header = Text::from(header.to_ascii_lowercase());
            let is_request = name == "request.headers";
            let attribute = if is_request {
                Attribute::RequestHeader(header)
            } else {
                Attribute::ResponseHeader(header)
            };
            return Ok((attribute, method(words)?));
        }
        if let Some((_, found)) = Attribute::NAMES.iter().find(|(known, _)| *known == name) {
            return Ok((found.clone(), method(words)?));
        }
        if words.peek() == Some(&Word::Sign("(")) {
            return refuse(format!("the function `{name}` is not supported"));
        }
        if !takes(words, ".") {
            return refuse(format!("the attribute `{name}` is not supported"));
        }
        match words.next() {
            Some(Word::Name(part)) => name = format!("{name}.{part}"),
            _ => return refuse(format!("the attribute `{name}` is not supported")),
        }
    }
}

fn method(words: &mut Words) -> Read<Option<String>> {
    if !takes(words, ".") {
        return Ok(None);
    }
    match words.next() {
        Some(Word::Name(method)) => Ok(Some(method)),
        _ => refuse("a function's name is missing after `.`"),
    }
}

fn name_of(attribute: &Attribute) -> String {
    match attribute {
        Attribute::RequestHeader(name) => format!("request.headers['{name}']"),
        Attribute::ResponseHeader(name) => format!("response.headers['{name}']"),
        other => {
            let known = Attribute::NAMES.iter().find(|(_, known)| known == other);
            known.map_or_else(String::new, |(name, _)| (*name).to_owned())
        }
    }
}
