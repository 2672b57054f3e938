// Includes the installed Catch2: 2.13 (Debian 12) or 3 (Homebrew, FreeBSD).
#pragma once

#if __has_include(<catch2/catch_test_macros.hpp>)
#include <catch2/catch_test_macros.hpp>
#else
#include <catch2/catch.hpp>
#endif
