//! A list that needs no memory of its own while it is short.

use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

/// An immutable list; up to `N` elements lie in place, more are shared. Cheap to clone.
#[derive(Clone)]
pub(crate) enum Few<T, const N: usize> {
    Here(u8, [T; N]),
    Shared(Arc<[T]>),
}

impl<T: Copy, const N: usize> Few<T, N> {
    /// A copy of `values`; `filler` stands where there are none.
    pub(crate) fn new(values: &[T], filler: T) -> Few<T, N> {
        let mut here = [filler; N];
        match here.get_mut(..values.len()) {
            Some(start) => {
                start.copy_from_slice(values);
                Few::Here(values.len() as u8, here)
            }
            None => Few::Shared(values.into()),
        }
    }
}

impl<T, const N: usize> Deref for Few<T, N> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        match self {
            Few::Here(length, here) => &here[..*length as usize],
            Few::Shared(shared) => shared,
        }
    }
}

impl<T: PartialEq, const N: usize> PartialEq for Few<T, N> {
    fn eq(&self, other: &Few<T, N>) -> bool {
        **self == **other
    }
}

impl<T: Eq, const N: usize> Eq for Few<T, N> {}

impl<T: Hash, const N: usize> Hash for Few<T, N> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_its_elements_wherever_they_lie() {
        for length in 0..5 {
            let values: Vec<u32> = (1..=length).collect();
            let list = Few::<u32, 2>::new(&values, 0);
            assert_eq!(*list, *values);
            assert_eq!(matches!(list, Few::Here(..)), length <= 2);
            assert!(list == list.clone());
            assert!(list != Few::new(&[7, 7, 7, 7, 7][..length as usize + 1], 0));
        }
    }
}
