# Prints the primes up to `limit`, one a line (the sieve of Eratosthenes).
BEGIN {
    for (n = 2; n <= limit; n++) {
        if (composite[n]) continue
        print n
        for (multiple = n * n; multiple <= limit; multiple += n) composite[multiple] = 1
    }
}
