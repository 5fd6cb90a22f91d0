<?php
// The accounts of the wiki: user0 to user19, with the password secret-NAME.
require_once getenv('MW_INSTALL_PATH') . '/maintenance/Maintenance.php';

class Users extends Maintenance
{
    public function execute()
    {
        for ($number = 0; $number < 20; $number++) {
            $user = User::createNew("User$number");
            $user->changeAuthenticationData([
                'username' => $user->getName(),
                'password' => "secret-user$number",
                'retype' => "secret-user$number",
            ]);
        }
    }
}

$maintClass = Users::class;
require_once RUN_MAINTENANCE_IF_MAIN;
