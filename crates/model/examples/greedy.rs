//! Greedy tokens of a model: `greedy DIRECTORY COUNT ID,ID,…`.
use kiln_model::{Event, Model, Request};
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let start = Instant::now();
    let device = kiln_cpu::device(Default::default())?;
    let model = Model::load(arguments[1].as_ref(), &device)?;
    eprintln!("load {:?}", start.elapsed());
    let prompt = arguments[3]
        .split(',')
        .map(str::parse)
        .collect::<Result<Vec<u32>, _>>()?;
    let request = Request {
        prompt,
        max_tokens: arguments[2].parse()?,
        ..Request::default()
    };
    let mut generation = model.generate(request)?;
    let mut start = Instant::now();
    let mut count = 0;
    while let Some(event) = generation.next() {
        if let Event::Prefill { total, .. } = event? {
            eprintln!("prefill {total} {:?}", start.elapsed());
            start = Instant::now();
        } else {
            count += 1;
        }
    }
    let per = start.elapsed() / count;
    eprintln!(
        "decode {per:?} a token, {:.1} tok/s",
        1.0 / per.as_secs_f64()
    );
    eprintln!("{:?}", device.stats());
    println!("{:?}", generation.tokens());
    Ok(())
}
