//! The bodies of the fuzz targets on seeded mutations, bounded, so that every run of the tests meets them; and the
//! same inputs to hyper.

use crate::{
    h1::{Numbers, REQUESTS, RESPONSES, h1_request, h1_response, mutate},
    h1_differential::{hyper_requests, hyper_response, run},
};

fn each_mutation(seeds: &[&str], rounds: usize, seed: u64, mut test: impl FnMut(&[u8])) {
    let mut numbers = Numbers::new(seed);
    for round in 0..rounds {
        let mutated = mutate(seeds[round % seeds.len()].as_bytes(), &mut numbers);
        let selector = u8::try_from(numbers.below(256)).unwrap();
        test(&[&[selector], mutated.as_slice()].concat());
    }
}

#[test]
fn fuzz_bodies_hold_on_the_seeds() {
    for seed in REQUESTS {
        (0..4).for_each(|cut| h1_request(&[&[cut], seed.as_bytes()].concat()));
        run(&[&[0], seed.as_bytes()].concat());
    }
    for seed in RESPONSES {
        (0..4).for_each(|cut| h1_response(&[&[cut], seed.as_bytes()].concat()));
        run(&[&[1], seed.as_bytes()].concat());
    }
}

#[test]
fn fuzz_h1_request_on_mutations() {
    each_mutation(REQUESTS, 5000, 0x5eed, h1_request);
}

#[test]
fn fuzz_h1_response_on_mutations() {
    each_mutation(RESPONSES, 5000, 0xfeed, h1_response);
}

#[test]
fn hyper_agrees_on_mutated_requests() {
    each_mutation(REQUESTS, 5000, 0xdeed, |data| run(&[&[0], &data[1..]].concat()));
}

#[test]
fn hyper_agrees_on_mutated_responses() {
    each_mutation(RESPONSES, 5000, 0xbeed, |data| run(&[&[1], &data[1..]].concat()));
}

/// Guards the comparison itself: hyper must really have read something.
#[test]
fn the_comparison_sees_messages() {
    let requests = hyper_requests(REQUESTS[3].as_bytes());
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].body, b"hello world");
    assert_eq!(requests[0].trailers, [("x-t".to_owned(), b"1".to_vec())]);
    let response = hyper_response(RESPONSES[0].as_bytes()).unwrap();
    assert_eq!(
        (response.start.as_str(), response.body.as_slice()),
        ("200", b"hello".as_slice())
    );
}
