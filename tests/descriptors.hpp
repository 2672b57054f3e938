// For tests that open many descriptors.
#pragma once

#include <sys/resource.h>

#include "catch.hpp"

/// Raises the limit of open descriptors as far as `wanted` takes. Returns whether that is enough.
/// If not, says so, and the test should end.
inline bool can_open(rlim_t wanted) {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur < wanted && limit.rlim_max >= wanted) {
    limit.rlim_cur = wanted;
    ::setrlimit(RLIMIT_NOFILE, &limit);
  }
  if (limit.rlim_cur >= wanted) return true;
  WARN("skipped: it takes " << wanted << " descriptors, and the limit is " << limit.rlim_cur);
  return false;
}
