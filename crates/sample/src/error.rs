//! Why no token could be chosen.

/// `Result` with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Options that make no sense, or logits that no token can be drawn from.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option outside its range.
    #[error("{name} must be {range}, given {value}")]
    Option {
        /// The option's name.
        name: &'static str,
        /// What it may be.
        range: &'static str,
        /// What it was.
        value: f64,
    },
    /// `top_k` that does not leave anything out.
    #[error(
        "top-k must be below the vocabulary's {vocabulary} ids (0 turns it off), given {value}"
    )]
    TopK {
        /// What was asked for.
        value: usize,
        /// Ids in the vocabulary.
        vocabulary: usize,
    },
    /// An id that the vocabulary does not have, in a logit bias or in the history.
    #[error("{what} names id {id}, but the vocabulary has {vocabulary} ids")]
    Id {
        /// Where the id came from.
        what: &'static str,
        /// The id.
        id: u32,
        /// Ids in the vocabulary.
        vocabulary: usize,
    },
    /// Not one logit per id.
    #[error("{given} logits, but the vocabulary has {vocabulary} ids")]
    Length {
        /// Logits given.
        given: usize,
        /// Ids in the vocabulary.
        vocabulary: usize,
    },
    /// No logits at all.
    #[error("no logits to choose from")]
    Empty,
    /// A logit that is NaN or +∞. The model's weights or its arithmetic are broken.
    #[error("the logit of id {id} is {value}")]
    NotFinite {
        /// The first such id.
        id: u32,
        /// NaN or +∞.
        value: f32,
    },
    /// Every logit is -∞.
    #[error("every logit is -inf, so there is no token to choose")]
    Nothing,
}
