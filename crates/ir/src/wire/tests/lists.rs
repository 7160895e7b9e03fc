//! The lists of fields against the descriptors.

use std::collections::HashSet;

use rajut_proto::schema::MessageSchema;

use super::super::support::{Support, support_table};

#[test]
fn every_name_in_the_lists_is_a_field_and_stands_once() {
    for lists in crate::wire::support::all() {
        let message = MessageSchema::named(lists.message)
            .unwrap_or_else(|| panic!("{} is not in the descriptors", lists.message));
        let mut seen = HashSet::new();
        let refused = lists.instead.iter().map(|(name, _)| name);
        for name in lists.supported.iter().chain(lists.ignorable).chain(refused) {
            assert!(
                message.field_named(name).is_some(),
                "{} has no field {name}",
                lists.message
            );
            assert!(seen.insert(name), "{}.{name} stands in two lists", lists.message);
        }
    }
    let messages: Vec<_> = crate::wire::support::all().iter().map(|it| it.message).collect();
    assert_eq!(
        messages.iter().collect::<HashSet<_>>().len(),
        messages.len(),
        "a message stands twice"
    );
}

#[test]
fn every_message_inside_a_supported_field_has_lists_of_its_own() {
    let known: HashSet<_> = crate::wire::support::all().iter().map(|it| it.message).collect();
    let mut missing = Vec::new();
    for row in support_table() {
        let field = MessageSchema::named(row.message).and_then(|it| it.field_named(row.field));
        let mut inner = field.and_then(rajut_proto::schema::FieldSchema::message);
        if let Some(entry) = inner.filter(|it| it.map_entry) {
            inner = entry.field(2).and_then(rajut_proto::schema::FieldSchema::message);
        }
        let Some(inner) = inner.filter(|_| row.support == Support::Supported) else {
            continue;
        };
        // A filter of an access log is refused as a whole, but for one.
        let judged_whole = row.message == "envoy.config.accesslog.v3.AccessLogFilter"
            || (row.message, row.field) == ("envoy.type.matcher.v3.StringMatcher", "custom");
        if !inner.name.starts_with("google.protobuf.") && !known.contains(inner.name) && !judged_whole {
            missing.push(format!("{}.{}: {}", row.message, row.field, inner.name));
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn the_table_for_the_reference_page_is_complete() {
    let rows = support_table();
    let count = |support| rows.iter().filter(|row| row.support == support).count();
    assert!(count(Support::Supported) > 250, "{}", count(Support::Supported));
    assert!(count(Support::Refused) > 100, "{}", count(Support::Refused));
    assert!(
        rows.iter()
            .all(|row| (row.support == Support::Refused) != row.instead.is_empty())
    );
}
