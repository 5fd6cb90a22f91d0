<?php
// Waits for the database, installs WordPress and makes the users user0, user1, … The password of NAME
// is secret-NAME, the address NAME@example.org.
mysqli_report(MYSQLI_REPORT_OFF);
for ($attempt = 0; !($database = mysqli_connect('localhost', 'root', '')); $attempt++) {
    if ($attempt > 200) {
        fwrite(STDERR, "the database does not answer\n");
        exit(1);
    }
    usleep(50000);
}
mysqli_query($database, 'CREATE DATABASE wordpress');

define('WP_INSTALLING', true);
// Nobody is to get a letter about the new site.
function wp_new_blog_notification() {}
require ABSPATH . 'wp-load.php';
require ABSPATH . 'wp-admin/includes/upgrade.php';
wp_install('Test site', 'admin', 'admin@example.org', true, '', 'secret-admin');
for ($number = 0; $number < 120; $number++) {
    $user = wp_insert_user([
        'user_login' => "user$number",
        'user_pass' => "secret-user$number",
        'user_email' => "user$number@example.org",
    ]);
    if (is_wp_error($user)) {
        fwrite(STDERR, $user->get_error_message() . "\n");
        exit(1);
    }
}
