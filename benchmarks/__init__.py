"""One runnable script a claim in the README; each prints its figures beside what they are measured against."""
