"""How any executor works: attempts as aggregates, work by lease, supervised children (design section 5)."""
